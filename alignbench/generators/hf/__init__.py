"""Networks of transformers as models of a `Law`. Part of `generators`, floor 1.

`factory` goes from what a user names (hub id, folder, GGUF file, pinned source) to a law. `pretrained` is what every
network brings (tokenizer, ends, identity); `causal` and `encoder_decoder` run one, `slots` is the fast way to decode
and `graphs` that way on a GPU, `heads` makes logits of hidden states. `policy` is what training changes of a network,
`adapters` puts on one what was trained before. `quantised` makes 8-bit weights, `precision` chooses a dtype, `series`
lists the checkpoints of a training run, `quiet` keeps progress bars away. `classifier` only reads texts, for features.

To add a kind of network, write a subclass of `pretrained.Pretrained` and choose it in `factory`.
"""
