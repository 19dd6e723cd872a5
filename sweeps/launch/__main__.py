"""Ray's process, as sweeps/launch/process.py starts it; not for people."""

from sweeps.launch.tuning import main

main()
