/*
 * bus: which chip answers an address, and how an access is cut to fit it.
 *
 * A range is found by a walk over at most BUS_MAX_RANGES entries, and remembered for the addresses that were
 * accessed last. Read next: board.c, which makes every claim.
 */
#include "devices/devices.h"

#include <string.h>

#include "vcpu/fail.h"

/* The bytes of one access, as 64-bit addresses so that the last byte of the space has a successor. */
struct span {
    uint64_t first, last;
};

static struct span span_of(uint32_t address, unsigned size)
{
    return (struct span){.first = address, .last = (uint64_t)address + size - 1};
}

static bool span_overlaps(struct span span, const struct bus_range *range)
{
    return span.first <= range->last && range->first <= span.last;
}

static bool span_is_within(struct span span, const struct bus_range *range)
{
    return range->first <= span.first && span.last <= range->last;
}

static uint32_t ones(unsigned size)
{
    return size == 4 ? UINT32_MAX : (1u << 8 * size) - 1;
}

static struct bus_range *bus_ranges(struct bus *bus, enum bus_space space, unsigned **count)
{
    *count = space == BUS_PORT ? &bus->n_ports : &bus->n_memory;
    return space == BUS_PORT ? bus->ports : bus->memory;
}

static void bus_forget(struct bus *bus)
{
    memset(bus->route, 0, sizeof bus->route);
}

static const struct bus_range *bus_find_overlap(struct bus *bus, enum bus_space space, uint32_t first,
                                                uint32_t last)
{
    unsigned *count;
    const struct bus_range *ranges = bus_ranges(bus, space, &count);

    for (unsigned i = 0; i < *count; i++)
        if (first <= ranges[i].last && ranges[i].first <= last)
            return &ranges[i];
    return NULL;
}

void bus_claim(struct bus *bus, enum bus_space space, uint32_t first, uint32_t last,
               const struct bus_device_ops *ops, void *device, const char *name)
{
    unsigned *count;
    struct bus_range *ranges = bus_ranges(bus, space, &count);

    const struct bus_range *other = bus_find_overlap(bus, space, first, last);

    BUG_ON(first > last);
    BUG_ON(ops->max_size != 1 && ops->max_size != 2 && ops->max_size != 4);
    if (other != NULL && !other->ops->bytes_only)
        BUG("%s at %#x-%#x overlaps %s", name, first, last, other->name);
    if (*count == BUS_MAX_RANGES)
        BUG("no room for %s: raise BUS_MAX_RANGES", name);
    bus_forget(bus);
    ranges[(*count)++] =
        (struct bus_range){.first = first, .last = last, .ops = ops, .device = device, .name = name};
}

bool bus_try_claim(struct bus *bus, enum bus_space space, uint32_t first, uint32_t last,
                   const struct bus_device_ops *ops, void *device, const char *name)
{
    uint32_t end = space == BUS_PORT ? UINT16_MAX : UINT32_MAX;

    if (first > last || last > end || bus_find_overlap(bus, space, first, last) != NULL)
        return false;
    bus_claim(bus, space, first, last, ops, device, name);
    return true;
}

void bus_release(struct bus *bus, enum bus_space space, uint32_t first)
{
    unsigned *count;
    struct bus_range *ranges = bus_ranges(bus, space, &count);

    for (unsigned i = 0; i < *count; i++) {
        if (ranges[i].first == first) {
            bus_forget(bus);
            ranges[i] = ranges[--*count];
            return;
        }
    }
}

/* The first range that has a byte of the piece and answers accesses of `guest_size`; NULL if there is none.
 */
static const struct bus_range *bus_find_answering(const struct bus *bus, enum bus_space space,
                                                  struct span piece, unsigned guest_size)
{
    const struct bus_range *ranges = space == BUS_PORT ? bus->ports : bus->memory;
    unsigned count = space == BUS_PORT ? bus->n_ports : bus->n_memory;

    for (unsigned i = 0; i < count; i++)
        if (span_overlaps(piece, &ranges[i]) && (guest_size == 1 || !ranges[i].ops->bytes_only))
            return &ranges[i];
    return NULL;
}

const struct bus_range *bus_find(const struct bus *bus, enum bus_space space, uint32_t address)
{
    return bus_find_answering(bus, space, span_of(address, 1), 1);
}

static void bus_report_unclaimed(const struct bus *bus, enum bus_space space, uint32_t address, unsigned size,
                                 bool is_write, uint32_t value)
{
    if (bus->observer.unclaimed != NULL)
        bus->observer.unclaimed(bus->observer.ctx, space, address, size, is_write, value);
}

/* One piece of the guest's access: whole if a chip can take it so or none answers, else in halves. A single
 * byte is always whole, so this ends. (Not inlined, for the sake of those that have a route.) */
__attribute__((noinline)) static uint32_t bus_read_piece(struct bus *bus, enum bus_space space,
                                                         uint32_t address, unsigned size, unsigned guest_size)
{
    struct span piece = span_of(address, size);
    const struct bus_range *range = bus_find_answering(bus, space, piece, guest_size);

    if (range == NULL) {
        bus_report_unclaimed(bus, space, address, size, false, ones(size));
        return ones(size);
    }
    if (span_is_within(piece, range) && size <= range->ops->max_size)
        return range->ops->read(range->device, address - range->first, size) & ones(size);

    unsigned half = size / 2;
    uint32_t low = bus_read_piece(bus, space, address, half, guest_size);
    uint32_t high = bus_read_piece(bus, space, address + half, half, guest_size);
    return low | high << (half == 1 ? 8 : 16);
}

__attribute__((noinline)) static void bus_write_piece(struct bus *bus, enum bus_space space, uint32_t address,
                                                      unsigned size, unsigned guest_size, uint32_t value)
{
    struct span piece = span_of(address, size);
    const struct bus_range *range = bus_find_answering(bus, space, piece, guest_size);

    value &= ones(size);
    if (range == NULL) {
        bus_report_unclaimed(bus, space, address, size, true, value);
        return;
    }
    if (span_is_within(piece, range) && size <= range->ops->max_size) {
        range->ops->write(range->device, address - range->first, size, value);
        return;
    }

    unsigned half = size / 2;
    bus_write_piece(bus, space, address, half, guest_size, value);
    bus_write_piece(bus, space, address + half, half, guest_size, value >> (8 * half));
}

static uint64_t key_of(uint32_t address, unsigned size)
{
    return (uint64_t)size << 32 | address;
}

static struct bus_route *bus_route(struct bus *bus, enum bus_space space, uint32_t address)
{
    return &bus->route[space][(address ^ address >> 4) % BUS_ROUTES];
}

static void bus_find_route(struct bus *bus, enum bus_space space, uint32_t address, unsigned size)
{
    struct bus_route *route = bus_route(bus, space, address);
    struct span span = span_of(address, size);
    const struct bus_range *range = bus_find_answering(bus, space, span, size);

    BUG_ON(size != 1 && size != 2 && size != 4);
    *route = (struct bus_route){.key = key_of(address, size), .mask = ones(size)};
    if (range == NULL || !span_is_within(span, range) || size > range->ops->max_size)
        return;
    route->ops = range->ops;
    route->device = range->device;
    route->offset = address - range->first;
}

/* The two that have no route yet are functions of their own, called last: the others need no stack frame. */
__attribute__((noinline)) static uint32_t bus_read_first(struct bus *bus, enum bus_space space,
                                                         uint32_t address, unsigned size)
{
    bus_find_route(bus, space, address, size);
    return bus_read(bus, space, address, size);
}

__attribute__((noinline)) static void bus_write_first(struct bus *bus, enum bus_space space, uint32_t address,
                                                      unsigned size, uint32_t value)
{
    bus_find_route(bus, space, address, size);
    bus_write(bus, space, address, size, value);
}

uint32_t bus_read(struct bus *bus, enum bus_space space, uint32_t address, unsigned size)
{
    const struct bus_route *route = bus_route(bus, space, address);
    uint32_t mask = route->mask; /* an access may change where others go */

    if (route->key != key_of(address, size))
        return bus_read_first(bus, space, address, size);
    if (route->ops == NULL)
        return bus_read_piece(bus, space, address, size, size);
    return route->ops->read(route->device, route->offset, size) & mask;
}

void bus_write(struct bus *bus, enum bus_space space, uint32_t address, unsigned size, uint32_t value)
{
    const struct bus_route *route = bus_route(bus, space, address);

    if (route->key != key_of(address, size))
        bus_write_first(bus, space, address, size, value);
    else if (route->ops == NULL)
        bus_write_piece(bus, space, address, size, size, value);
    else
        route->ops->write(route->device, route->offset, size, value & route->mask);
}
