"""
Token buckets: what fills up all the time and may be emptied at once, in memory or, for many processes, in Redis.

A bucket holds as many as one minute lets through and fills at that rate, so in any sixty seconds it gives at most twice
that: the limit and one burst. A request takes from all of its buckets or from none.

Who is refused has a **place** kept: so much of the bucket at a moment to come, which is when they are told to come
back. Others are let through only as far as every place that is kept stays covered. Should there be less than was
promised, as more was used than was foreseen, those who come for their places have them in the order of these. A place
that nobody comes for is given up after ``GRACE`` seconds.

Who asks again and again without waiting has ever more places kept, and so have many who ask at once with one key. They
may, until others would wait for ``LONG`` seconds: to who has less than an equal share of a minute's worth is then given
what others have beyond theirs. ``take`` here and ``SCRIPT`` for Redis are the same algorithm; the tests hold both to
the same vectors.
"""

import math
from dataclasses import dataclass

# How long a place is kept for who does not come, and how far ahead places are kept at all.
GRACE = 3.0
HORIZON = 120.0
# From which wait on others give up the places that they have beyond their share; the crowd of a key is rarely as large.
LONG = 110.0
# How many places a bucket keeps before those who have many are told when to come and have none kept.
MOST_PLACES = 1000
# What is told one key for moments so close together is one place; were they further apart, others would take it first.
TOGETHER = 0.02
# What floats may be off by: of a time in seconds, and of a level as a share of its capacity.
INSTANT = 1e-6
TOLERANCE = 1e-6
# By how much a server's clock may seem ahead of a process's own before it is taken for set.
SKEW = 0.25
# Of what a process knows of a bucket that was lost: so long others may have taken what came in, unseen.
UNSEEN_SECONDS = 1.0
# A process that was not heard of for so long holds no request any more.
LOST_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class Place:
    """So much of a bucket that is kept for ``who`` from ``due`` on; what one was told at different times may be one."""

    who: str
    due: float
    amount: float
    is_shared: bool = False
    # What a process calls it when it tells the server; more of it is then another place.
    number: int = 0


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

    def resize(self, capacity, now):
        """Let another capacity hold; what was used stays used, and places promised at another rate are given up."""
        self.refill(now)
        self.level = max(self.level + capacity - self.capacity, min(self.level, 0.0))
        self.capacity, self.rate = float(capacity), capacity / 60.0
        self.places.clear()

    def refill(self, now):
        if now > self.at:
            self.level = min(self.level + (now - self.at) * self.rate, self.capacity)
        self.at = now
        self.forget(now)

    def forget(self, now):
        """Give up the places that nobody has come for."""
        while self.places and not -GRACE <= self.places[0].due - now <= HORIZON + 1:
            self.places.pop(0)

    def give(self, amount, now):
        """Put back what was not used, or take from what there is ``now`` what was used beyond what was foreseen."""
        self.refill(now)
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

    def holds(self, place, amount):
        """Whether who comes for ``place`` can have ``amount``: all that is kept but what is kept behind it."""
        if amount > place.amount:
            return False
        left = self.level
        for before in self.places:
            if before is place:
                break
            left -= before.amount
        return self.is_elastic or left >= amount - self.capacity * TOLERANCE

    def surplus(self, who):
        """The places that others have beyond their share, where ``who`` has less than theirs."""
        kept = {who: 0.0}
        for place in self.places:
            kept[place.who] = kept.get(place.who, 0.0) + place.amount
        share = self.capacity / max(len(kept), 2)
        if kept[who] >= share or max(kept.values()) <= share:
            return ()
        found, before = set(), dict.fromkeys(kept, 0.0)
        for place in self.places:
            if before[place.who] >= share:
                found.add(place)
            before[place.who] += place.amount
        return found

    def wait_for(self, amount, now, surplus=()):
        """Seconds until ``amount`` may be taken beside all places but ``surplus``; ``inf`` if it never may."""
        if amount > self.capacity or not self.rate:
            return math.inf
        kept, blocked, blocked_until = 0.0, 0.0, now
        for place in self.places:
            if place not in surplus:
                kept += place.amount
                if self.level + max(place.due - now, 0.0) * self.rate - kept < amount:
                    blocked, blocked_until = kept, max(place.due, now)
        return max(blocked_until - now, (amount - self.level + blocked) / self.rate)

    def keep(self, who, due, amount, *, since, is_shared=False):
        """Keep a place: as part of one of ``who`` that is due right before it, not before ``since``, or another one."""
        since = max(since, due - TOGETHER) - INSTANT
        places = self.places
        index = len(places)
        while index and places[index - 1].due > due:
            index -= 1
        for place in reversed(places[:index]):
            if place.due < since:
                break
            if place.who == who and place.is_shared == is_shared and not place.number:
                place.amount += amount
                return
        if len(places) < MOST_PLACES or self._has_few(who):
            places.insert(index, Place(who, due, amount, is_shared))

    def _has_few(self, who):
        names = [place.who for place in self.places]
        return names.count(who) < max(MOST_PLACES // len({*names, who}), 1)

    def use(self, place, amount):
        """Take ``amount`` from a place, which is gone when nothing of it is left."""
        place.amount -= amount
        if place.amount <= self.capacity * TOLERANCE:
            self.places.remove(place)

    def make_room(self, amount, now, surplus):
        """Where more is kept than there will be, take up to ``amount`` from places of ``surplus``, the latest first."""
        kept = 0.0
        for index, place in enumerate(self.places):
            kept += place.amount
            if self.level + max(place.due - now, 0.0) * self.rate - kept < -self.capacity * TOLERANCE:
                for taken in reversed(self.places[: index + 1]):
                    if amount > 0 and taken in surplus:
                        part = min(amount, taken.amount)
                        amount -= part
                        self.use(taken, part)
                return


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
            place and bucket.holds(place, amount)
        ):
            works = False
    for bucket, amount, place in zip(buckets, amounts, mine, strict=True):
        if place:
            bucket.use(place, amount)
    if works:
        for bucket, amount in zip(buckets, amounts, strict=True):
            bucket.level -= amount
        return None
    least, index = -1.0, 0
    surplus = []
    for number, (bucket, amount) in enumerate(zip(buckets, amounts, strict=True)):
        needed = bucket.wait_for(amount, now)
        surplus.append(bucket.surplus(who) if LONG < needed < math.inf else ())
        if surplus[-1]:
            needed = bucket.wait_for(amount, now, surplus[-1])
        if needed > least:
            least, index = needed, number
    if least == math.inf:
        return least, index
    wait = max(math.ceil(least - INSTANT), 1)
    if wait <= HORIZON:
        for bucket, amount, places in zip(buckets, amounts, surplus, strict=True):
            bucket.keep(who, now + wait, amount, since=now + least)
            if places:
                bucket.make_room(amount, now, places)
    return wait, index


# The same for many processes, for many requests at once. KEYS are the buckets, then the counters of requests at the
# same time. ARGV: the time (empty: the server's own), the process, and in MessagePack
#   of each bucket  its capacity, what to take besides, whether it is elastic, what the process knows of it: level,
#                   time and how many seconds ago by its own clock, or false; and the places that it has kept alone:
#                   for whom, in how many seconds, how much, and its number for it, as it may tell of one again;
#   of each counter its limit and how many the process holds;
#   of each request who asks, its buckets and counters by their numbers, and the amounts.
# The answer, in MessagePack too: the time, of each bucket its level and what is free of it, of each counter how many
# there are, and of each request the wait (-1 for ever), the number of the bucket and of the counter that refuse it.
# What a process knows bounds what a server can claim that has lost its memory or whose clock was set.
SCRIPT = (
    f"local GRACE, HORIZON, INSTANT, TOLERANCE = {GRACE}, {HORIZON}, {INSTANT}, {TOLERANCE}\n"
    f"local LONG, MOST_PLACES, TOGETHER = {LONG}, {MOST_PLACES}, {TOGETHER}\n"
    f"local LOST, SKEW, UNSEEN = {LOST_SECONDS}, {SKEW}, {UNSEEN_SECONDS}\n"
    """
local now, process = tonumber(ARGV[1]), ARGV[2]
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) - 1700000000 + tonumber(time[2]) / 1000000
end
local told = cmsgpack.unpack(ARGV[3])
local buckets, counters = {}, {}

-- What was found out of a bucket holds for the requests that follow, as long as it stays as it is.
local function changed(bucket)
  bucket.free, bucket.waits, bucket.kept = nil, {}, nil
end

local function free(bucket, without)
  if bucket.free and not without then return bucket.free end
  local level, kept = bucket.level, 0
  for i, place in ipairs(bucket.places) do
    if i ~= without then
      kept = kept + place[3]
      level = math.min(level, bucket.level + math.max(place[2] - now, 0) * bucket.rate - kept)
    end
  end
  if not without then bucket.free = level end
  return level
end

local function holds(bucket, index, amount)
  if amount > bucket.places[index][3] then return false end
  local left = bucket.level
  for i = 1, index - 1 do left = left - bucket.places[i][3] end
  return bucket.elastic or left >= amount - bucket.capacity * TOLERANCE
end

local function surplus_for(bucket, who)
  local kept, before, found = bucket.kept, {}, {}
  if not kept then
    kept = {by = {}, number = 0, most = 0}
    for _, place in ipairs(bucket.places) do
      local so_far = kept.by[place[1]]
      if not so_far then kept.number = kept.number + 1 end
      kept.by[place[1]] = (so_far or 0) + place[3]
      kept.most = math.max(kept.most, kept.by[place[1]])
    end
    bucket.kept = kept
  end
  local share = bucket.capacity / math.max(kept.number + (kept.by[who] and 0 or 1), 2)
  if (kept.by[who] or 0) >= share or kept.most <= share then return nil end
  for _, place in ipairs(bucket.places) do
    local earlier = before[place[1]] or 0
    if earlier >= share then found[place] = true end
    before[place[1]] = earlier + place[3]
  end
  return found
end

local function wait_for(bucket, amount, surplus)
  if amount > bucket.capacity or bucket.rate == 0 then return math.huge end
  if bucket.waits[amount] and not surplus then return bucket.waits[amount] end
  local kept, blocked, blocked_until = 0, 0, now
  for _, place in ipairs(bucket.places) do
    if not (surplus and surplus[place]) then
      kept = kept + place[3]
      if bucket.level + math.max(place[2] - now, 0) * bucket.rate - kept < amount then
        blocked, blocked_until = kept, math.max(place[2], now)
      end
    end
  end
  local wait = math.max(blocked_until - now, (amount - bucket.level + blocked) / bucket.rate)
  if not surplus then bucket.waits[amount] = wait end
  return wait
end

local function place_of(bucket, who, amount)
  local mine
  for i, place in ipairs(bucket.places) do
    if place[2] > now + INSTANT then break end
    if place[1] == who then
      local best = mine and bucket.places[mine][3]
      if not best or place[3] >= amount and (place[3] < best or best < amount) then mine = i end
    end
  end
  return mine
end

local function keep(bucket, who, due, amount, since, name)
  local index = #bucket.places + 1
  while index > 1 and bucket.places[index - 1][2] > due do index = index - 1 end
  changed(bucket)
  since = math.max(since, due - TOGETHER) - INSTANT
  for i = index - 1, 1, -1 do
    local place = bucket.places[i]
    if place[2] < since then break end
    if place[1] == who and not name and not place[4] then
      place[3] = place[3] + amount
      return
    end
  end
  if #bucket.places >= MOST_PLACES then
    local names, number, mine = {[who] = true}, 1, 0
    for _, place in ipairs(bucket.places) do
      if not names[place[1]] then names[place[1]], number = true, number + 1 end
      if place[1] == who then mine = mine + 1 end
    end
    if mine >= math.max(math.floor(MOST_PLACES / number), 1) then return end
  end
  table.insert(bucket.places, index, {who, due, amount, name})
end

local function use(bucket, index, amount)
  changed(bucket)
  local place = bucket.places[index]
  place[3] = place[3] - amount
  if place[3] <= bucket.capacity * TOLERANCE then table.remove(bucket.places, index) end
end

local function make_room(bucket, amount, surplus)
  local kept = 0
  for index, place in ipairs(bucket.places) do
    kept = kept + place[3]
    if bucket.level + math.max(place[2] - now, 0) * bucket.rate - kept < -bucket.capacity * TOLERANCE then
      for i = index, 1, -1 do
        local taken = bucket.places[i]
        if amount > 0 and surplus[taken] then
          local part = math.min(amount, taken[3])
          amount = amount - part
          use(bucket, i, part)
        end
      end
      return
    end
  end
end

for i, known in ipairs(told[1]) do
  local bucket = {capacity = known[1], rate = known[1] / 60, elastic = known[3]}
  local state = redis.call('GET', KEYS[i])
  if state then
    state = cmsgpack.unpack(state)
  else
    state = {bucket.capacity, now, now, bucket.capacity, {}}
  end
  bucket.level, bucket.doubted, bucket.places = state[1], state[3], state[5]
  if state[4] ~= bucket.capacity then
    bucket.level = math.max(bucket.level + bucket.capacity - state[4], math.min(bucket.level, 0))
    bucket.places = {}
  end
  local elapsed = now - state[2]
  local seen_level, seen_at, age = known[4], known[5], known[6]
  if age then
    if state[2] < seen_at - INSTANT then
      bucket.doubted = now
    elseif elapsed > age + SKEW then
      elapsed = age
    end
  end
  bucket.level = math.min(bucket.level + math.max(elapsed, 0) * bucket.rate, bucket.capacity)
  if age and math.abs(now - bucket.doubted) < GRACE and seen_at <= bucket.doubted then
    bucket.level = math.min(bucket.level, seen_level + math.max(age - UNSEEN, 0) * bucket.rate)
  end
  bucket.level = math.min(bucket.level - known[2], bucket.capacity)
  if known[7] and known[7][1] then
    local there = {}
    for _, place in ipairs(bucket.places) do
      if place[4] then there[place[4]] = place end
    end
    for _, place in ipairs(known[7]) do
      local name, due = process .. ' ' .. place[4], now + place[2]
      if there[name] then
        there[name][3] = math.min(there[name][3], place[3])
      else
        keep(bucket, place[1], due, place[3], due, name)
      end
    end
  end
  while bucket.places[1] do
    local ahead = bucket.places[1][2] - now
    if ahead >= -GRACE and ahead <= HORIZON + 1 then break end
    table.remove(bucket.places, 1)
  end
  changed(bucket)
  buckets[i] = bucket
end

for i, known in ipairs(told[2]) do
  local counter = {limit = known[1], mine = known[2], total = known[2], key = KEYS[#buckets + i]}
  local fields = redis.call('HGETALL', counter.key)
  for j = 1, #fields, 2 do
    if fields[j] == process then
      counter.is_known = true
    else
      local number, at = string.match(fields[j + 1], '^(%d+) (%S+)$')
      if math.abs(now - tonumber(at)) > LOST then
        redis.call('HDEL', counter.key, fields[j])
      else
        counter.total = counter.total + tonumber(number)
      end
    end
  end
  counters[i] = counter
end

local answers = {}
for number, ask in ipairs(told[3]) do
  local who, amounts = ask[1], ask[4]
  local busy, works, mine = 0, true, {}
  for i, index in ipairs(ask[3]) do
    if counters[index].total >= counters[index].limit then busy, works = i, false break end
  end
  if busy == 0 then
    for i, index in ipairs(ask[2]) do
      local bucket, amount = buckets[index], amounts[i]
      if bucket.places[1] then mine[i] = place_of(bucket, who, amount) end
      if free(bucket, mine[i]) < amount - bucket.capacity * TOLERANCE then
        if not (mine[i] and holds(bucket, mine[i], amount)) then works = false end
      end
    end
    for i, index in ipairs(ask[2]) do
      if mine[i] then use(buckets[index], mine[i], amounts[i]) end
    end
  end
  local wait, refusing = 0, 0
  if works then
    for i, index in ipairs(ask[2]) do
      changed(buckets[index])
      buckets[index].level = buckets[index].level - amounts[i]
    end
    for _, index in ipairs(ask[3]) do
      counters[index].mine, counters[index].total = counters[index].mine + 1, counters[index].total + 1
    end
  elseif busy == 0 then
    local least, surplus = -1, {}
    for i, index in ipairs(ask[2]) do
      local needed = wait_for(buckets[index], amounts[i])
      if needed > LONG and needed < math.huge then surplus[i] = surplus_for(buckets[index], who) end
      if surplus[i] then needed = wait_for(buckets[index], amounts[i], surplus[i]) end
      if needed > least then least, refusing = needed, i end
    end
    if least == math.huge then
      wait = -1
    else
      wait = math.max(math.ceil(least - INSTANT), 1)
      if wait <= HORIZON then
        for i, index in ipairs(ask[2]) do
          keep(buckets[index], who, now + wait, amounts[i], now + least)
          if surplus[i] then make_room(buckets[index], amounts[i], surplus[i]) end
        end
      end
    end
  end
  answers[number] = {wait, refusing, busy}
end

local levels, totals = {}, {}
for i, bucket in ipairs(buckets) do
  local missing = bucket.rate > 0 and (bucket.capacity - bucket.level) / bucket.rate or 60
  local state = cmsgpack.pack({bucket.level, now, bucket.doubted, bucket.capacity, bucket.places})
  redis.call('SET', KEYS[i], state, 'PX', math.ceil((math.max(missing, 0) + HORIZON + GRACE) * 1000))
  levels[i] = {bucket.level, free(bucket)}
end
for i, counter in ipairs(counters) do
  if counter.mine > 0 then
    redis.call('HSET', counter.key, process, string.format('%d %.6f', counter.mine, now))
    redis.call('EXPIRE', counter.key, 3600)
  elseif counter.is_known then
    redis.call('HDEL', counter.key, process)
  end
  totals[i] = counter.total
end
return cmsgpack.pack({now, levels, totals, answers})
"""
)
