"""Slurm on this machine, in a folder of its own: one node of two slots, munge beside it, nothing of the system touched.

    apt-get install slurm-wlm munge        Debian's, as of 22.05
    python tests/slurm/cluster.py DIR      starts it and says how to use it; Ctrl-C ends it

DIR should be short (a socket's path has at most 107 bytes) and lie on a local disk.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
SECONDS = 60.0  # that the node may take to be idle

CONFIGURATION = """
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
JobRequeue=1
KillWait=5
MessageTimeout=60
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=here Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs that are not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find the cluster. Raises RuntimeError, with the daemons' logs, if it does not
    come up."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    controller, daemon = _ports(2)
    configuration.write_text(
        CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            controller=controller,
            daemon=daemon,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            folder=folder,
        )
    )
    environment = os.environ | {
        "SLURM_CONF": str(configuration),
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]),
    }
    own = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "log", "pid", "seed")]
    daemons = (
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *own],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D"],
    )
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for words in daemons:
            with (folder / f"{words[0]}.out").open("wb") as log:
                processes.append(
                    subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
                )
            if words[0] == "munged":
                _until(lambda: (folder / "munge.socket").exists(), folder, processes)
        _until(lambda: _idle(environment), folder, processes)
        yield environment
    finally:
        subprocess.run(["scancel", "--state=RUNNING,PENDING"], env=environment, capture_output=True, timeout=120)
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _ports(count: int) -> list[int]:
    """Ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _idle(environment: dict[str, str]) -> bool:
    asked = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
    return asked.stdout.strip() == "idle"


def _until(ready, folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    until = time.monotonic() + SECONDS
    while not ready():
        if time.monotonic() > until or any(process.poll() is not None for process in processes):
            logs = {log.name: log.read_text(errors="replace")[-500:] for log in sorted(folder.glob("*.out"))}
            raise RuntimeError(f"expected an idle node within {SECONDS:.0f} s, found {logs}")
        time.sleep(0.3)


if __name__ == "__main__":
    if missing():
        sys.exit(f"not installed: {', '.join(missing())}. apt-get install slurm-wlm munge")
    with running(Path(sys.argv[1]).absolute()) as environment:
        print(
            f"export SLURM_CONF={environment['SLURM_CONF']}   # partition `here`, two slots; Ctrl-C ends it", flush=True
        )
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("ended")
