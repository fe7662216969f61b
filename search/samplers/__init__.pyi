from .make import make_sampler as make_sampler
from .make import prior_trial as prior_trial
