"""Laws that forbid tokens, so that every draw keeps a rule. Part of `generators`, floor 1.

`masks` says what a decoder asks of a rule: which tokens may come next. `lexical` answers for words, `regular` for
regular expressions, `grammar` for JSON schemas and Lark grammars (`json_grammar` writes the grammar of a schema);
`steered` makes a rule of the answers, by which `generators.reweighted` decodes and scores.

To add a kind of rule, write a class with the methods of `masks.Masks`.
"""
