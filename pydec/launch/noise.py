"""What mpirun or srun says about a job that failed, told from what the job itself says.

mpirun frames its texts with lines of dashes and prints the usual ones after the job's own last
words, which would bury the reason. The usual ones are kept back and give a reason where the job
gave none; everything else passes through as it comes.
"""

from __future__ import annotations

import re

_RULE = b"-" * 74
_REASON = re.compile(rb"pydec: (error|stopped)")
_USUAL = (
    b"MPI_ABORT was invoked",
    b"has exited due to process",
    b"exited with non-zero status",
    b"noticed that process rank",
    b"sent help message",
)
_NEVER = b"NBC_Progress: an error"  # once a look, for ever, where a collective operation met a death
_SRUN = re.compile(  # what srun says of a job that ends, a line each; other lines of it pass
    rb"(?:srun|slurmstepd\S*): (?:error: +)?"
    rb"(?:mpi/pmix\S*: |\S+: tasks? |Node failure on |Force Terminated |forcing job termination|got SIGCONT"
    rb"|launch/slurm: |Job step aborted|\*\*\* (?:STEP|JOB) |Terminating |Timed out waiting for job step)"
)
_SRUN_ENDED = re.compile(rb"srun: error: (\S+): tasks? ([\d,-]+): (.+)")
_EXIT_CODE = re.compile(rb"Exited with exit code (\d+)")
_SRUN_LOST = re.compile(rb"srun: error: Node failure on (\S+)")
_NODE_LOST = re.compile(
    rb"lost communication with a remote daemon.*?Remote daemon: .*? on node (\S+)"
    rb"|PRTE daemon has unexpectedly failed",
    re.DOTALL,
)
_PEER_LOST = re.compile(r"\b(PeerLost|PeerTimeout)\b|ranks are left, fewer than")
_COUNT = re.compile(rb"\d+( (m|mo|mor|more.*)?)?", re.DOTALL)  # "2 more processes have sent help message ..."
_KILLED = re.compile(rb"process rank (\d+) .*?exited on\s+signal (\d+)(?: \(([^)]*)\))?", re.DOTALL)
_EXITED = re.compile(rb"Process name: \[.*?,(\d+)\].*?Exit code:\s+(\d+)", re.DOTALL)


class NoiseFilter:
    """Separates a stream of standard error, fed in pieces of any size.

    Attributes:
        reason: the job's own last line that starts with ``pydec: error`` or ``pydec: stopped``.
        last_line: the last line that passed through.
        node_lost: which host mpirun lost, in words, or ""; that ends the job, whatever mpirun's status.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.last_line = ""
        self.node_lost = ""
        self._line = b""  # of the current line, what is kept until it is complete
        self._passed = b""  # of the current line, what has passed already
        self._block: list[bytes] | None = None  # lines of the framed text that is open
        self._usual: list[bytes] = []
        self._after_never = False

    def feed(self, data: bytes) -> bytes:
        """What of ``data`` passes on now; a line that may be a frame waits for its end."""
        out = b""
        for piece in data.splitlines(keepends=True):
            self._line += piece
            if piece.endswith(b"\n"):
                line, self._line = self._line, b""
                out += self._take(line)
            elif self._block is None and (
                piece.endswith(b"\r") or not _may_be_held(self._passed + self._line)
            ):
                out += self._line
                self._passed = b"" if piece.endswith(b"\r") else self._passed + self._line
                self._line = b""
        return out

    def finish(self) -> bytes:
        """What is left at the end of the stream; usual texts only where the job gave no reason."""
        out = self._take(self._line) if self._line else b""
        self._line = b""
        if self._block is not None:
            out += self._close()
        if not self.reason and not self.mpirun_reason():
            out += b"".join(self._usual)
        return out

    def mpirun_reason(self) -> str:
        """Why the job ended, as far as the launcher's usual texts tell, in one line."""
        said = b"".join(self._usual)
        if lost := _SRUN_LOST.search(said):
            return f"node {lost[1].decode(errors='replace')} was lost"
        if ended := _SRUN_ENDED.search(said):
            node, ranks, how = (part.decode(errors="replace").strip() for part in ended.groups())
            return f"rank {ranks} on {node}: {how}"
        if killed := _KILLED.search(said):
            rank, signum, name = (part.decode(errors="replace") for part in killed.groups(b""))
            return f"rank {rank} was killed by signal {signum}" + (f" ({name})" if name else "")
        if exited := _EXITED.search(said):
            return f"rank {int(exited[1])} exited with status {int(exited[2])}"
        return ""

    def killed(self) -> bool:
        """Whether the launcher says that a signal ended a rank."""
        said = b"".join(self._usual)
        by_srun = any(not how.startswith(b"Exited") for _, _, how in _SRUN_ENDED.findall(said))
        return by_srun or _KILLED.search(said) is not None

    def exit_codes(self) -> list[int]:
        """Statuses other than 0 with which ranks have exited, as srun says; those that died have none."""
        found = (_EXIT_CODE.fullmatch(how.strip()) for *_, how in _SRUN_ENDED.findall(b"".join(self._usual)))
        return [int(match[1]) for match in found if match]

    @property
    def peer_lost(self) -> bool:
        """Whether the job's own reason is that other ranks are gone."""
        return _PEER_LOST.search(self.reason) is not None

    def _take(self, line: bytes) -> bytes:
        bare = line.strip(b" \0\r\n")
        whole, self._passed = self._passed + line, b""
        if bare == _RULE and whole == line:
            if self._block is None:
                self._block = [line]
                return b""
            self._block.append(line)
            return self._close()
        if self._block is not None:
            self._block.append(line)
            return b""
        if bare.startswith(_NEVER) or (not bare and self._after_never):  # an empty line follows each
            self._after_never = True
            return b""
        self._after_never = False
        if not bare and self._usual:
            return b""  # what trails mpirun's usual texts
        if b"sent help message" in bare or _SRUN.match(bare):
            self._usual.append(line)
            return b""
        text = whole.strip(b" \0\r\n").decode(errors="replace")
        if text:
            self.last_line = text
            if _REASON.match(whole.strip()):
                self.reason = text
        return line

    def _close(self) -> bytes:
        block = b"".join(self._block or [])
        self._block = None
        if lost := _NODE_LOST.search(block):
            self.node_lost = (
                f"host {lost[1].decode(errors='replace')} was lost" if lost[1] else "a host was lost"
            )
        if any(mark in block for mark in _USUAL):
            self._usual.append(block)
            return b""
        self.last_line = ""
        return block


def _may_be_held(start: bytes) -> bool:
    """Whether a line that starts like this may turn out to be mpirun's or srun's."""
    bare = start.lstrip(b" \0")
    srun = any(name.startswith(bare) or bare.startswith(name) for name in (b"srun: ", b"slurmstepd"))
    return srun or _NEVER.startswith(bare) or _RULE.startswith(bare) or _COUNT.fullmatch(bare) is not None
