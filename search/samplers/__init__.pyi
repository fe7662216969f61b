from .make import make_sampler as make_sampler
from .make import trial_for_other_studies as trial_for_other_studies
