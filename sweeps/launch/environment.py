"""What Ray reads from the environment of its process."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

TOKEN = ".token"  # noqa: S105 - a file: what nodes read of the study folder
TOKEN_FILE = Path.home() / ".ray" / "auth_token"  # where Ray looks for one that is not named

ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt is the driver's to handle
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Inside a Ray job the workers' empty working folder stands instead of the job's.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}
# Without its gcs_server Ray waits a minute before it gives up: on one machine it never comes back.
LOCAL = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}


def environment(*, local: bool) -> dict[str, str]:
    """Return the environment of Ray's process: what the user has set stays.

    `local` is Ray on this machine alone, reached by nobody else.
    """
    found = {**ALWAYS, **(LOCAL if local else {}), **os.environ}
    if local:
        # Ray takes the machine's address, and its servers listen on all, whatever
        # `_node_ip_address` says; under this name it has a setting that keeps both to loopback.
        found["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # Said aloud, or Ray leaves a token in the user's home and a warning on the terminal.
        found.setdefault("RAY_AUTH_MODE", "token")
        if "RAY_AUTH_TOKEN_PATH" not in found:
            found.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif "RAY_AUTH_TOKEN" in found or "RAY_AUTH_TOKEN_PATH" in found or TOKEN_FILE.is_file():
        found.setdefault("RAY_AUTH_MODE", "token")  # who has a token means to show it
    return found
