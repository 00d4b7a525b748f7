"""Few-shot learners, each a few pure functions, and the registry that the CLI, the tests and the docs read.

A file for each family: `protonet`, `matching`, `ridge`, `maml` (with `context`), `reptile`, `lstm` and `mann`; what
they share is in `inner` and `cells`. `train` meta-trains any of them as `settings` say, `evaluate` tests them, and
`teach` is the door for people with few examples. Below `train`: `outer` has the meta-gradients, `adam` the optimiser;
`shards` share an update among processes of one machine, `ranks` among those of torchrun (`group`, `meeting`);
`checkpoint` keeps a training under way, `memory` what malloc would give back.
"""

from collections.abc import Callable
from functools import partial

from edgemeta.contracts import Learner
from edgemeta.learners.lstm import lstm_learner
from edgemeta.learners.maml import maml
from edgemeta.learners.mann import mann
from edgemeta.learners.matching import matching
from edgemeta.learners.protonet import protonet
from edgemeta.learners.reptile import reptile
from edgemeta.learners.ridge import ridge

__all__ = ["LEARNERS"]

LEARNERS: dict[str, Callable[..., Learner]] = {  # name -> (net, **settings) -> learner
    "protonet": protonet,
    "matching": matching,
    "matching-fce": partial(matching, name="matching-fce", full_context=True),
    "ridge": ridge,
    "anil": partial(maml, name="anil", scope="head", head="row"),
    "maml": maml,
    "fomaml": partial(maml, name="fomaml", second_order=False),
    "meta-sgd": partial(maml, name="meta-sgd", rates="parameter"),
    "maml-norm": partial(maml, name="maml-norm", scope="norm"),
    "maml-last": partial(maml, name="maml-last", scope="last"),
    "reptile": reptile,
    "metanet": partial(maml, name="metanet", scope="context"),
    "lstm": lstm_learner,
    "mann": mann,
}
