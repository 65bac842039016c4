from .algorithm.agent import Algorithm as Algorithm
from .algorithm.environment import Environment as Environment
from .algorithm.environment import Step as Step
from .algorithm.setup import Setup as Setup
from .algorithm.setup import with_parts as with_parts
from .api import compare as compare
from .api import load as load
from .api import train as train
from .config import Config as Config
from .environments.registry import make_task as make_task
from .environments.registry import task_of as task_of
from .environments.task import Task as Task
from .presets import PRESETS as PRESETS
from .results.history import History as History
from .search.tuning import tune as tune
from .training.devices import use_all_cores as use_all_cores
from .training.policy import Policy as Policy
from .training.policy import load_policy as load_policy
from .training.result import Result as Result
from .training.setup_factory import make_algorithm as make_algorithm
from .training.setup_factory import make_hyperparameters as make_hyperparameters
from .training.setup_factory import make_setup as make_setup
from .training.trainer import Trainer as Trainer

__version__: str
