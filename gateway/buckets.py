"""
Token buckets: what fills up all the time and may be emptied at once, in memory or, for many processes, in Redis.

A bucket holds as many as one minute lets through and fills at that rate, so in any sixty seconds it gives at most twice
that: the limit and one burst. A request takes from all of its buckets or from none.

Who is refused has a **place** kept: so much of the bucket at a moment to come, which is when they are told to come
back. Others are let through only as far as every place that is kept stays covered. A place that nobody comes for is
given up after ``GRACE`` seconds. ``take`` here and ``SCRIPT`` for Redis are the same algorithm; the tests hold both to
the same vectors.
"""

import math
from dataclasses import dataclass

# How long a place is kept for who does not come, and how far ahead places are kept at all.
GRACE = 3.0
HORIZON = 120.0
# What floats may be off by: of a time in seconds, and of a level as a share of its capacity.
INSTANT = 1e-6
TOLERANCE = 1e-6
# By how much a server's clock may seem ahead of a process's own before it is taken for set.
SKEW = 0.25
# A process that was not heard of for so long holds no request any more.
LOST_SECONDS = 10.0


@dataclass(slots=True)
class Place:
    """So much of a bucket that is kept for ``who`` from ``due`` on."""

    who: str
    due: float
    amount: float


class Bucket:
    """
    What is left of one limit. ``level`` is what it held at ``at``; below zero where more was used than was foreseen.

    An ``elastic`` one honours a place even where what others used turned out to be more than was foreseen.
    """

    __slots__ = ("at", "capacity", "is_elastic", "level", "places", "rate")

    def __init__(self, capacity, now, *, is_elastic=False):
        self.capacity = self.level = float(capacity)
        self.rate = capacity / 60.0
        self.at = now
        self.is_elastic = is_elastic
        self.places: list[Place] = []

    def resize(self, capacity, rate, now):
        """Let another capacity and rate hold; places were promised at other ones and are given up."""
        self.refill(now)
        self.capacity, self.rate = float(capacity), rate
        self.level = min(self.level, self.capacity)
        self.places.clear()

    def refill(self, now):
        if now > self.at:
            self.level = min(self.level + (now - self.at) * self.rate, self.capacity)
        self.at = now
        while self.places and not -GRACE <= self.places[0].due - now <= HORIZON + 1:
            self.places.pop(0)

    def give(self, amount):
        """Put back what was not used, or take what was used beyond what was foreseen."""
        self.level = min(self.level + amount, self.capacity)

    def place_of(self, who, amount, now):
        """The place of ``who`` that is due, the smallest that is large enough; ``None`` where none is kept."""
        best = None
        for place in self.places:
            if place.due > now + INSTANT:
                break
            if place.who == who and (best is None or _fits_better(place.amount, best.amount, amount)):
                best = place
        return best

    def free(self, now, without=None):
        """How much may be taken with every place but ``without`` still covered."""
        free = self.level
        kept = 0.0
        for place in self.places:
            if place is not without:
                kept += place.amount
                free = min(free, self.level + max(place.due - now, 0.0) * self.rate - kept)
        return free

    def wait_for(self, amount, now, without=None):
        """Seconds until ``amount`` may be taken; ``inf`` for more than there can ever be."""
        if amount > self.capacity or not self.rate:
            return math.inf
        kept, blocked, blocked_until = 0.0, 0.0, now
        for place in self.places:
            if place is not without:
                kept += place.amount
                if self.level + max(place.due - now, 0.0) * self.rate - kept < amount:
                    blocked, blocked_until = kept, max(place.due, now)
        return max(blocked_until - now, (amount - self.level + blocked) / self.rate)

    def keep(self, who, due, amount):
        """Keep a place."""
        index = len(self.places)
        while index and self.places[index - 1].due > due:
            index -= 1
        self.places.insert(index, Place(who, due, amount))


def _fits_better(offered, best, amount):
    return (offered < best or best < amount) if offered >= amount else False


def take(buckets, amounts, who, now):
    """
    Take ``amounts`` from all ``buckets``: ``None`` where that worked, else ``(wait, index)``.

    ``wait`` is in whole seconds: who comes back then finds a place kept, unless it lies beyond ``HORIZON``. ``inf``
    says that it never works. ``index`` is that of the bucket that takes longest.
    """
    mine = []
    works = True
    for bucket, amount in zip(buckets, amounts, strict=True):
        bucket.refill(now)
        place = bucket.place_of(who, amount, now) if bucket.places else None
        mine.append(place)
        if bucket.free(now, place) < amount - bucket.capacity * TOLERANCE and not (
            place and bucket.is_elastic and amount <= place.amount
        ):
            works = False
    for bucket, place in zip(buckets, mine, strict=True):
        if place:
            bucket.places.remove(place)
    if works:
        for bucket, amount in zip(buckets, amounts, strict=True):
            bucket.level -= amount
        return None
    wait, index = -1.0, 0
    for number, (bucket, amount) in enumerate(zip(buckets, amounts, strict=True)):
        needed = bucket.wait_for(amount, now)
        if needed > wait:
            wait, index = needed, number
    if wait == math.inf:
        return wait, index
    wait = max(math.ceil(wait - INSTANT), 1)
    if wait <= HORIZON:
        for bucket, amount in zip(buckets, amounts, strict=True):
            bucket.keep(who, now + wait, amount)
    return wait, index


# The same for many processes. KEYS are the buckets, then the counters of requests at the same time. ARGV: the time
# (empty: the server's own), who, the process, how many buckets, whether it is a request; then of each bucket its
# capacity, the amount, what to take besides, whether it is elastic, and what the process knows of it: level, time and
# how many seconds ago by its own clock; of each counter its limit and how many the process holds, -1 where the server
# knows. What a process knows bounds what a server can claim that has lost its memory or whose clock was set.
SCRIPT = (
    f"local GRACE, HORIZON, INSTANT, TOLERANCE = {GRACE}, {HORIZON}, {INSTANT}, {TOLERANCE}\n"
    f"local LOST, SKEW = {LOST_SECONDS}, {SKEW}\n"
    """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) - 1700000000 + tonumber(time[2]) / 1000000
end
local who, process, count, asks = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local next_argument = 6
local function argument()
  local value = ARGV[next_argument]
  next_argument = next_argument + 1
  return tonumber(value)
end

local function free(bucket, without)
  local level, kept = bucket.level, 0
  for i, place in ipairs(bucket.places) do
    if i ~= without then
      kept = kept + place[3]
      level = math.min(level, bucket.level + math.max(place[2] - now, 0) * bucket.rate - kept)
    end
  end
  return level
end

local function wait_for(bucket)
  if bucket.amount > bucket.capacity or bucket.rate == 0 then return math.huge end
  local kept, blocked, blocked_until = 0, 0, now
  for _, place in ipairs(bucket.places) do
    kept = kept + place[3]
    if bucket.level + math.max(place[2] - now, 0) * bucket.rate - kept < bucket.amount then
      blocked, blocked_until = kept, math.max(place[2], now)
    end
  end
  return math.max(blocked_until - now, (bucket.amount - bucket.level + blocked) / bucket.rate)
end

local function keep(bucket, due)
  local index = #bucket.places + 1
  while index > 1 and bucket.places[index - 1][2] > due do index = index - 1 end
  table.insert(bucket.places, index, {who, due, bucket.amount})
end

local buckets, works = {}, true
for i = 1, count do
  local bucket = {capacity = argument(), amount = argument(), owed = argument(), elastic = argument()}
  local seen_level, seen_at, age = argument(), argument(), argument()
  bucket.rate = bucket.capacity / 60
  local known = redis.call('GET', KEYS[i])
  local state = known and cmsgpack.unpack(known)
  if state then
    bucket.level, bucket.at, bucket.doubted, bucket.places = state[1], state[2], state[3], state[4]
  else
    bucket.level, bucket.at, bucket.doubted, bucket.places = bucket.capacity, now, now, {}
  end
  local elapsed = now - bucket.at
  if age then
    if bucket.at < seen_at - INSTANT then
      bucket.doubted = now
    elseif elapsed > age + SKEW then
      elapsed = age
    end
  end
  bucket.level = math.min(bucket.level + math.max(elapsed, 0) * bucket.rate, bucket.capacity)
  if age and math.abs(now - bucket.doubted) < GRACE and seen_at <= bucket.doubted then
    bucket.level = math.min(bucket.level, seen_level + age * bucket.rate)
  end
  bucket.level = math.min(bucket.level - bucket.owed, bucket.capacity)
  while bucket.places[1] do
    local ahead = bucket.places[1][2] - now
    if ahead >= -GRACE and ahead <= HORIZON + 1 then break end
    table.remove(bucket.places, 1)
  end
  for j, place in ipairs(bucket.places) do
    if not asks or place[2] > now + INSTANT then break end
    local best = bucket.mine and bucket.places[bucket.mine][3]
    if place[1] == who and (not best or place[3] >= bucket.amount and (place[3] < best or best < bucket.amount)) then
      bucket.mine = j
    end
  end
  if asks and free(bucket, bucket.mine) < bucket.amount - bucket.capacity * TOLERANCE then
    local place = bucket.places[bucket.mine]
    if not (place and bucket.elastic == 1 and bucket.amount <= place[3]) then works = false end
  end
  buckets[i] = bucket
end

local busy, totals, held = nil, {}, {}
for i = count + 1, #KEYS do
  local limit, own = argument(), argument()
  local mine, total = 0, 0
  local fields = redis.call('HGETALL', KEYS[i])
  for j = 1, #fields, 2 do
    local number, at = string.match(fields[j + 1], '^(%d+) (%S+)$')
    if fields[j] == process then
      mine = tonumber(number)
    elseif math.abs(now - tonumber(at)) > LOST then
      redis.call('HDEL', KEYS[i], fields[j])
    else
      total = total + tonumber(number)
    end
  end
  if own >= 0 then mine = own end
  total = total + mine
  if asks and total >= limit then busy = busy or i - count end
  totals[i], held[i] = total, mine
end
if busy then works = false end

local wait, index = 0, 0
if asks then
  for i, bucket in ipairs(buckets) do
    if bucket.mine and (works or not busy) then table.remove(bucket.places, bucket.mine) end
  end
  if works then
    for i, bucket in ipairs(buckets) do bucket.level = bucket.level - bucket.amount end
  elseif not busy then
    wait = -1
    for i, bucket in ipairs(buckets) do
      local needed = wait_for(bucket)
      if needed > wait then wait, index = needed, i end
    end
    if wait < math.huge then
      wait = math.max(math.ceil(wait - INSTANT), 1)
      if wait <= HORIZON then
        for _, bucket in ipairs(buckets) do keep(bucket, now + wait) end
      end
    end
  end
end

local reply = {works and 1 or 0, wait < math.huge and wait or -1, index, busy or 0, string.format('%.6f', now)}
for i, bucket in ipairs(buckets) do
  local missing = bucket.rate > 0 and (bucket.capacity - bucket.level) / bucket.rate or 60
  local state = cmsgpack.pack({bucket.level, now, bucket.doubted, bucket.places})
  redis.call('SET', KEYS[i], state, 'PX', math.ceil((math.max(missing, 0) + HORIZON + GRACE) * 1000))
  reply[#reply + 1] = string.format('%.6f', bucket.level)
  reply[#reply + 1] = string.format('%.6f', free(bucket))
end
for i = count + 1, #KEYS do
  local mine = held[i]
  if asks and works then mine, totals[i] = mine + 1, totals[i] + 1 end
  if mine > 0 then
    redis.call('HSET', KEYS[i], process, string.format('%d %.6f', mine, now))
    redis.call('EXPIRE', KEYS[i], 3600)
  else
    redis.call('HDEL', KEYS[i], process)
  end
  reply[#reply + 1] = totals[i]
end
return reply
"""
)
