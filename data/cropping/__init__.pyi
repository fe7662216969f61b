from .augmentation import Augmentation as Augmentation
from .augmentation import Vary as Vary
from .crops import Crop as Crop
from .crops import cut_crop as cut_crop
from .crops import dihedral as dihedral
from .crops import offset_bounds as offset_bounds
from .crops import resize_crop as resize_crop
