"""reloading.py - a new configuration for a gateway that runs."""
import os
import signal

from . import gateway
from .core import within


def write(gw, sections):
    """Replace the file at one stroke, as editors do."""
    temporary = gw.config_path + ".new"
    with open(temporary, "w", encoding="utf-8") as f:
        f.write(sections if isinstance(sections, str) else gateway.config_text(sections))
    os.chmod(temporary, 0o600)
    os.replace(temporary, gw.config_path)


def reloads(gw):
    return gw.log.count("reloaded: ") + gw.log.count("reload failed")


def reload(gw, sections=None, seconds=5):
    """SIGHUP, and wait until it has been dealt with."""
    before = reloads(gw)
    if sections is not None:
        write(gw, sections)
    gw.process.signal(signal.SIGHUP)
    within(gw.context.slow(seconds), lambda: reloads(gw) > before, "the reload's line")


def sections_of(gw, proxies, rules, **more):
    return gateway.config(proxies, rules, api={"unix": gw.api}, **more)
