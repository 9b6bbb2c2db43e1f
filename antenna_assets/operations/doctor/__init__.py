"""`antenna doctor`: diagnoses of the machine, the settings and the services, each with its fix, in seconds.

Nothing is started, stopped or repaired, and no finding shows a password. An object store is tested with a
file that is removed again.
"""

from antenna_assets.operations.doctor.finding import Finding
from antenna_assets.operations.doctor.run import findings

__all__ = ["Finding", "findings"]
