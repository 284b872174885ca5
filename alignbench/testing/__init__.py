"""What a plug-in's author tests with: the laws that generators keep, and worlds that can be listed. Floor 3.

`laws` are checks of a generator: `check(generator, prompts, max_tokens=5)`. `worlds` are bases so small that all their
continuations can be listed, and trained: a tiny network, saved as real ones are, and a table with a row of logits for
each prefix. To add a law, write a function of a `Case` and name it in `LAWS`. May import: floors 0 to 2.
"""

from alignbench.testing.laws import LAWS as LAWS
from alignbench.testing.laws import MANY as MANY
from alignbench.testing.laws import TOLERANCE as TOLERANCE
from alignbench.testing.laws import Case as Case
from alignbench.testing.laws import LawBroken as LawBroken
from alignbench.testing.laws import batch_size_changes_nothing as batch_size_changes_nothing
from alignbench.testing.laws import check as check
from alignbench.testing.laws import delivers_the_rows as delivers_the_rows
from alignbench.testing.laws import differing as differing
from alignbench.testing.laws import draws_depend_on_their_row_alone as draws_depend_on_their_row_alone
from alignbench.testing.laws import frequencies_are_probabilities as frequencies_are_probabilities
from alignbench.testing.laws import gap as gap
from alignbench.testing.laws import goes_on as goes_on
from alignbench.testing.laws import nats as nats
from alignbench.testing.laws import probabilities_sum_to_one as probabilities_sum_to_one
from alignbench.testing.laws import rescoring_is_sampling as rescoring_is_sampling
from alignbench.testing.laws import states_stay_as_they_were as states_stay_as_they_were
from alignbench.testing.worlds import load_table as load_table
from alignbench.testing.worlds import save_network as save_network
from alignbench.testing.worlds import table_world as table_world
from alignbench.testing.worlds import tiny_network as tiny_network
