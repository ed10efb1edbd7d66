"""Studies, which train several models (arms) under common protocols; comparisons of runs and published numbers."""

from mixer_jax.studies.arms import PROTOCOLS, Arm
from mixer_jax.studies.comparison import compare, require_free
from mixer_jax.studies.jobs import Job, create_jobs, train_missing
from mixer_jax.studies.rows import STUDY_FILE, Row, require_study

__all__ = [
    "PROTOCOLS",
    "STUDY_FILE",
    "Arm",
    "Job",
    "Row",
    "compare",
    "create_jobs",
    "require_free",
    "require_study",
    "train_missing",
]
