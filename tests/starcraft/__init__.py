"""A stand-in for StarCraft II: protocol evidence only, never a result.

``install(folder)`` makes an installation that a StarCraft II launcher starts as if it were the game: an executable
``Versions/Base<build>/SC2_x64`` that listens on a websocket at ``/sc2api``, speaks s2clientprotocol with the messages
of that package, and plays simple unit combat on the maps of SMAC and SMACv2 (which are empty files here). It differs
from the game wherever combat is concerned: no collisions, a small part of the unit statistics, straight-line movement.
What it shows is that a client follows the protocol, decodes what it is sent and survives a game that misbehaves
(`faults`). Its game version says ``stand-in``, and so does every result that is made on it.
"""

from starcraft.install import VERSIONS, clear_faults, install, launches, set_faults

__all__ = ["VERSIONS", "clear_faults", "install", "launches", "set_faults"]
