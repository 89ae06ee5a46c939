"""Where everything lies: rows of the state arrays, constants of the game, entries of the settings.

A game's state is one float32 array [FLOAT_ROWS, P] and one int32 array [INT_ROWS, P], a column a unit (P units after
padding to whole vectors), plus three int64 counters. Allies are units 0..A-1, enemies A..N-1.
"""

import numpy as np

# float32 rows. Map units, seconds.
X, Y = 0, 1  # position, [0, 32]
HEALTH = 2
COOLDOWN = 3  # seconds until the weapon may fire; sinks without bound
MOVE_X, MOVE_Y = 4, 5  # movement of the last action
GOAL_X, GOAL_Y = 6, 7  # where the scripted enemy walks when it sees nobody; (0, 0) until its first decision
RADIUS = 8  # of the unit's type, kept beside the positions for the collision test
PACE = 9  # of the unit's type: map units a tick
NEXT_X, NEXT_Y = 10, 11  # scratch: positions between two phases of a tick; the dead and the padding are FAR away
DAMAGE = 12  # scratch: taken in this tick; 0 between two steps
BEFORE = 13  # scratch: health before the step
STRIDE_X, STRIDE_Y = 14, 15  # scratch: the way of a tick under the present order
WAIT = 16  # scratch: what this tick takes off the cooldown, seconds; DT between two steps
FLOAT_ROWS = 17

# int32 rows
TYPE = 0
ALIVE = 1
ATTACK = 2  # last attack action (>= 5), or 0
SLOT = 3  # the scripted enemy's last target as a slot, or -1
AIM = 4  # scratch: the unit whose distance decides whether the shot can be fired, or -1
VICTIM = 5  # scratch: the unit that takes the damage, or -1
INT_ROWS = 6

# What one unit sees of the others: offsets over its sight, and the distance, FAR if dead
OFFSET_X, OFFSET_Y, APART = 0, 1, 2
VIEW_ROWS = 3

# int64 counters of a game
STEP = 0  # steps taken in this episode
COUNT = 1  # steps and resets since the environment was made: the clock of the random numbers
EPISODE = 2  # episodes begun
COUNTERS = 3

LANES = 8  # units are padded to a multiple of this; with 16, armies of 17 to 24 took a tenth longer
FAR = np.float32(1e9)

# Entries of the settings array (int32)
NUM_ALLIES, NUM_ENEMIES, NUM_AGENTS, MAX_STEPS, FIRST_ENV = 0, 1, 2, 3, 4
RANDOM_TARGET, ENEMY_SHOOTS, SEE_ENEMY_ACTIONS, WALLS_KILL = 5, 6, 7, 8
SELF_PLAY, SELF_PLAY_REWARD, LIMIT_IS_TERMINAL, CONIC, CONTINUOUS = 9, 10, 11, 12, 13
RANDOM_POSITIONS, RANDOM_TYPES, KEEP_ENDED = 14, 15, 16
WIDEST = 17  # the largest radius of a unit that may appear, in sixteenths of a map unit
SETTINGS = 18

# The game (SMAX of JaxMARL 0.2.0)
MAP_SIZE = np.float32(32.0)
TICKS = 8  # per environment step
DT = np.float32(1.0 / 16.0)  # seconds a tick
MOVES = 4  # north, east, south, west
FIRST_ATTACK = 5  # after the moves and "stop"
WIN_BONUS = np.float32(1.0)
NUM_TYPES = 6
UNIT_FEATURES = 7 + NUM_TYPES
OWN_FEATURES = 4 + NUM_TYPES
STATE_FEATURES = OWN_FEATURES + 2
FEATURE_COLUMNS = 16  # of scratch: UNIT_FEATURES and room, so that a row is whole vectors
SECTORS, SECTOR_SLOTS = 32, 2  # of the conic observation
CONTINUOUS_ACTIONS = 4

# By unit type: marine, marauder, stalker, zealot, zergling, hydralisk.
SPEED = np.array([3.15, 2.25, 4.13, 3.15, 4.13, 3.15], np.float32)
ATTACK_DAMAGE = np.array([9, 10, 13, 8, 5, 12], np.float32)
ATTACK_RANGE = np.array([5, 6, 6, 2, 2, 5], np.float32)
SIGHT = np.array([9, 10, 10, 9, 8, 9], np.float32)
UNIT_RADIUS = np.array([0.375, 0.5625, 0.625, 0.5, 0.375, 0.625], np.float32)
MAX_HEALTH = np.array([45, 125, 160, 150, 35, 80], np.float32)
RELOAD = np.array([0.61, 1.07, 1.87, 0.86, 0.5, 0.59], np.float32)

# What a random number is for (fourth word of the counter), so that no two draws share one.
FOR_SPAWN, FOR_SPAWN_SHAPE, FOR_SPAWN_GROUP, FOR_ENEMY, FOR_COOLDOWN, FOR_CONTINUOUS = range(6)


def padded(num_units: int) -> int:
    """Columns that hold ``num_units`` units in whole vectors."""
    return -(-num_units // LANES) * LANES
