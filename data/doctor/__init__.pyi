from .check import CheckReport as CheckReport
from .check import check_pairs as check_pairs
from .check import check_quickly as check_quickly
from .findings import Finding as Finding
from .findings import Severity as Severity
from .repair import REPAIR_REPORT as REPAIR_REPORT
from .repair import refuse_target as refuse_target
from .repair import repair_pairs as repair_pairs
