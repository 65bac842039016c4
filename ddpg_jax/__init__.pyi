from .algorithm.agent import Algorithm as Algorithm
from .algorithm.environment import Environment as Environment
from .algorithm.environment import Step as Step
from .algorithm.loop import Setup as Setup
from .api import train as train
from .config import Config as Config
from .environments.registry import make as make
from .population.assembly import make_algorithm as make_algorithm
from .population.assembly import make_hyperparameters as make_hyperparameters
from .population.assembly import make_setup as make_setup
from .presets import PRESETS as PRESETS
from .processes.devices import use_all_cores as use_all_cores
from .results.history import History as History
from .runs.policy import Policy as Policy
from .runs.policy import load_policy as load_policy

__version__: str
