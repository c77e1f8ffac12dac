"""The rules of `rlray/Pong-v0` a second time: one game, plain numbers, one frame after the other."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from rlray.envs.pong.game import PongGames

MASK = 2**64 - 1
NEAR = 1e-3  # closer than that to deciding otherwise, single precision may


@dataclass
class Game:
    """In the order of the rows of `PongGames`, the rules' own included."""

    x: float
    y: float
    agent: float
    opponent: float
    vx: float
    vy: float
    agent_v: float
    opponent_v: float
    points: float
    lost: float
    aim: float
    speed: float
    line: float
    stream: int = 0
    reward: int = 0
    over: bool = False
    unsure: bool = False

    @classmethod
    def of(cls, games: PongGames, i: int) -> Game:
        return cls(*(float(each) for each in games._state[:13, i]), stream=int(games._stream[i]))

    def numbers(self) -> np.ndarray:
        return np.array([getattr(self, each.name) for each in fields(self)[:13]])

    def copy(self) -> Game:
        return replace(self)

    def bits(self) -> int:
        self.stream = (self.stream + 0x9E3779B97F4A7C15) & MASK
        z = self.stream
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def reaches(self, value: float, limit: float) -> bool:
        self.unsure |= abs(value - limit) < NEAR
        return value >= limit

    def step(self, action: int, frame_skip: int) -> None:
        self.agent_v = {2: 2.5, 4: 2.5, 3: -2.5, 5: -2.5}.get(action, 0.0)
        self.opponent_v = min(max((self.y - self.opponent - self.aim) / frame_skip, -2.0), 2.0)
        for _ in range(frame_skip):
            self.frame()

    def frame(self) -> None:
        self.agent = min(max(self.agent + self.agent_v, -72.0), 72.0)
        self.opponent = min(max(self.opponent + self.opponent_v, -72.0), 72.0)
        if self.over:
            return
        self.x += self.vx
        self.y += self.vy
        if self.y * self.vy > 0 and self.reaches(abs(self.y), 78.0):
            self.y, self.vy = (156.0 - self.y if self.y > 0 else -156.0 - self.y), -self.vy
        if self.line == 59.0 and self.reaches(abs(self.x), 59.0):
            self.meet()
        elif self.line == 80.0 and self.reaches(abs(self.x), 80.0):
            self.score()

    def meet(self) -> None:
        side = 1 if self.x > 0 else -1
        offset = (self.y - (self.agent if side > 0 else self.opponent)) / 10.0
        if self.reaches(abs(offset), 1.0) and abs(offset) > 1.0:
            self.line = 80.0
            return
        self.speed = min(self.speed + 0.15, 3.5)
        self.x = side * 118.0 - self.x
        self.vx = -side * self.speed * (1 + 0.25 * abs(offset))
        self.vy = 3.0 * offset
        if side > 0:
            self.aim = 9.0 * signed(self.bits())

    def score(self) -> None:
        self.reward += 1 if self.x < 0 else -1
        self.points += self.x < 0
        self.lost += self.x > 0
        bits = self.bits()
        self.x = self.y = self.aim = 0.0
        self.vx, self.vy = (1.75 if bits & 1 else -1.75), 1.5 * signed(bits)
        self.speed, self.line = 1.75, 59.0
        if max(self.points, self.lost) >= 21:
            self.vx, self.vy, self.over = 0.0, 0.0, True


def signed(bits: int) -> float:
    return (bits >> 40) / 2**23 - 1.0
