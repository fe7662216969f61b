from .in_process import SearchOutcome as SearchOutcome
from .in_process import run_in_process as run_in_process
from .join import JoinOptions as JoinOptions
from .join import join_search as join_search
from .ray_driver import ClusterOptions as ClusterOptions
from .ray_driver import run_on_cluster as run_on_cluster
from .supervisor import run_with_workers as run_with_workers
from .supervisor import share_cores as share_cores
