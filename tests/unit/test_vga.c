/* The VGA: text as kernels write it, the cursor, hardware scrolling, the planes behind it, and the registers.
 */
#include "devices/vga.h"
#include "fake_clock.h"

#include <check.h>
#include <stdlib.h>

static struct fake_clock fake;
static struct vga vga;
static unsigned changes;

static void screen_changed(void *ctx)
{
    ck_assert_ptr_eq(ctx, &changes);
    changes++;
}

static void setup(void)
{
    changes = 0;
    fake_clock_init(&fake);
    vga_init(&vga, &fake.clock, screen_changed, &changes);
    ck_assert_uint_eq(changes, 0);
}

/* By address, as on the bus. */
static void poke(uint32_t address, uint8_t value)
{
    vga_memory_ops.write(&vga, address - VGA_MEMORY_FIRST, 1, value);
}

static uint8_t peek(uint32_t address)
{
    return (uint8_t)vga_memory_ops.read(&vga, address - VGA_MEMORY_FIRST, 1);
}

static void out(uint16_t port, uint8_t value)
{
    if (port == VGA_STATUS_PORT)
        vga_status_ops.write(&vga, 0, 1, value);
    else if (port >= VGA_CRTC_FIRST)
        vga_crtc_ops.write(&vga, port - VGA_CRTC_FIRST, 1, value);
    else
        vga_port_ops.write(&vga, port - VGA_PORT_FIRST, 1, value);
}

static uint8_t in(uint16_t port)
{
    if (port == VGA_STATUS_PORT)
        return (uint8_t)vga_status_ops.read(&vga, 0, 1);
    if (port >= VGA_CRTC_FIRST)
        return (uint8_t)vga_crtc_ops.read(&vga, port - VGA_CRTC_FIRST, 1);
    return (uint8_t)vga_port_ops.read(&vga, port - VGA_PORT_FIRST, 1);
}

static void out_indexed(uint16_t port, uint8_t index, uint8_t value)
{
    out(port, index);
    out(port + 1, value);
}

static uint8_t in_indexed(uint16_t port, uint8_t index)
{
    out(port, index);
    return in(port + 1);
}

static struct screen screen(void)
{
    struct screen view;
    vga_get_screen(&vga, &view);
    return view;
}

/* ---- text -------------------------------------------------------------------------------------------- */

START_TEST(text_reaches_the_screen)
{
    struct screen before = screen();
    ck_assert_uint_eq(before.columns, 80);
    ck_assert_uint_eq(before.rows, 25);
    for (unsigned i = 0; i < 80 * 25; i++) {
        ck_assert_uint_eq(before.cells[2 * i], ' ');
        ck_assert_uint_eq(before.cells[2 * i + 1], 0x07);
    }
    poke(0xb8000, 'H');
    poke(0xb8001, 0x1f);
    poke(0xb8000 + 2 * (80 * 24 + 79), 'Z');
    struct screen after = screen();
    ck_assert_uint_eq(after.cells[0], 'H');
    ck_assert_uint_eq(after.cells[1], 0x1f);
    ck_assert_uint_eq(after.cells[2 * 1999], 'Z');
    ck_assert_uint_eq(after.generation, before.generation + 3);
    ck_assert_uint_eq(changes, 3);
    ck_assert_uint_eq(peek(0xb8000), 'H');
    ck_assert_uint_eq(peek(0xb8001), 0x1f);
    ck_assert_uint_eq(peek(0xb8002), ' ');
}
END_TEST

START_TEST(nothing_new_is_no_change)
{
    uint64_t generation = screen().generation;
    poke(0xb8000, ' ');
    poke(0xb8000 + 4000, 'x'); /* below the screen */
    poke(0xbffff, 'x');
    out_indexed(0x3d4, 0x0f, 0);
    ck_assert_uint_eq(screen().generation, generation);
    ck_assert_uint_eq(changes, 0);
    ck_assert_uint_eq(peek(0xbffff), 'x');
    poke(0xa0000, 'x'); /* outside of the text aperture nothing answers */
    poke(0xb0000, 'x');
    ck_assert_uint_eq(peek(0xa0000), 0xff);
    ck_assert_uint_eq(peek(0xb7fff), 0xff);
}
END_TEST

START_TEST(cursor)
{
    ck_assert_uint_eq(screen().cursor_column, 0);
    ck_assert_uint_eq(screen().cursor_row, 0);
    out_indexed(0x3d4, 0x0e, (80 * 12 + 34) >> 8);
    out_indexed(0x3d4, 0x0f, (80 * 12 + 34) & 0xff);
    ck_assert_uint_eq(screen().cursor_column, 34);
    ck_assert_uint_eq(screen().cursor_row, 12);
    ck_assert_uint_eq(changes, 2);
    ck_assert_uint_eq(in_indexed(0x3d4, 0x0e), (80 * 12 + 34) >> 8); /* as xv6's console reads it */
    ck_assert_uint_eq(in_indexed(0x3d4, 0x0f), (80 * 12 + 34) & 0xff);
    out_indexed(0x3d4, 0x0a, 0x20); /* off */
    ck_assert_uint_eq(screen().cursor_column, 80);
    out_indexed(0x3d4, 0x0a, 0x0d);
    out_indexed(0x3d4, 0x0e, 0xff); /* far away */
    ck_assert_uint_eq(screen().cursor_row, 25);
}
END_TEST

START_TEST(start_address_scrolls)
{
    for (unsigned row = 0; row < 26; row++)
        poke(0xb8000 + 160 * row, (uint8_t)('A' + row));
    unsigned before = changes;
    out_indexed(0x3d4, 0x0d, 80); /* down by one row */
    ck_assert_uint_eq(changes, before + 1);
    for (unsigned row = 0; row < 25; row++)
        ck_assert_uint_eq(screen().cells[160 * row], 'B' + row);
    ck_assert_uint_eq(screen().cursor_column, 80); /* the cursor stands above the screen now */
    poke(0xb8000 + 160, '!');
    ck_assert_uint_eq(screen().cells[0], '!');
    poke(0xb8000, '?');
    ck_assert_uint_eq(screen().cells[0], '!');
}
END_TEST

START_TEST(start_address_at_every_extreme)
{
    /* The last cells of the 32 KiB page, then what lies behind it in the planes, then round to the start. */
    poke(0xb8000, 'F');
    poke(0xbfffe, 'L');
    out_indexed(0x3d4, 0x0c, 0x3f);
    out_indexed(0x3d4, 0x0d, 0xff);
    ck_assert_uint_eq(screen().cells[0], 'L');
    ck_assert_uint_eq(screen().cells[2], 0);
    out_indexed(0x3d4, 0x0c, 0xff);
    ck_assert_uint_eq(screen().cells[2], 'F');
    poke(0xb8000, 'f');
    ck_assert_uint_eq(screen().cells[2], 'f');
}
END_TEST

START_TEST(reset_clears)
{
    poke(0xb8000, 'x');
    out_indexed(0x3d4, 0x0f, 5);
    uint64_t generation = screen().generation;
    vga_reset(&vga);
    ck_assert_uint_eq(screen().cells[0], ' ');
    ck_assert_uint_eq(screen().cursor_column, 0);
    ck_assert_uint_gt(screen().generation, generation);
}
END_TEST

/* ---- display memory ---------------------------------------------------------------------------------- */

static void set_planar(uint8_t map_mask)
{
    out_indexed(0x3c4, 2, map_mask);
    out_indexed(0x3c4, 4, 0x06); /* sequential */
    out_indexed(0x3ce, 5, 0x00);
    out_indexed(0x3ce, 6, 0x05); /* A0000, 64 KiB, graphics */
}

/* As Linux's vgacon loads a font and reads it back. */
START_TEST(font_in_plane_2)
{
    poke(0xb8000, 'T');
    poke(0xb8001, 0x70);
    set_planar(0x04);
    out_indexed(0x3ce, 4, 2);
    for (unsigned i = 0; i < 8192; i++)
        poke(0xa0000 + i, (uint8_t)(i * 7));
    for (unsigned i = 0; i < 8192; i++)
        ck_assert_uint_eq(peek(0xa0000 + i), (uint8_t)(i * 7));
    ck_assert_uint_eq(peek(0xb8000), 0xff);
    out_indexed(0x3c4, 2, 0x03);
    out_indexed(0x3c4, 4, 0x02);
    out_indexed(0x3ce, 4, 0);
    out_indexed(0x3ce, 5, 0x10);
    out_indexed(0x3ce, 6, 0x0e);
    ck_assert_uint_eq(peek(0xb8000), 'T');
    ck_assert_uint_eq(peek(0xb8001), 0x70);
    ck_assert_uint_eq(screen().cells[0], 'T');
}
END_TEST

static uint8_t plane_at(unsigned plane, uint32_t address)
{
    out_indexed(0x3ce, 4, (uint8_t)plane);
    return peek(address);
}

START_TEST(write_modes)
{
    set_planar(0x0f);
    poke(0xa0010, 0x5a);
    for (unsigned plane = 0; plane < 4; plane++)
        ck_assert_uint_eq(plane_at(plane, 0xa0010), 0x5a);

    out_indexed(0x3ce, 0, 0x05); /* mode 0 with set/reset in planes 0 and 1 */
    out_indexed(0x3ce, 1, 0x03);
    out_indexed(0x3ce, 3, 0x04); /* rotate by 4 */
    poke(0xa0011, 0x12);
    ck_assert_uint_eq(plane_at(0, 0xa0011), 0xff);
    ck_assert_uint_eq(plane_at(1, 0xa0011), 0x00);
    ck_assert_uint_eq(plane_at(2, 0xa0011), 0x21);

    out_indexed(0x3ce, 1, 0);
    out_indexed(0x3ce, 3, 0x18); /* xor, under a bit mask */
    out_indexed(0x3ce, 8, 0x0f);
    peek(0xa0010);
    poke(0xa0012, 0xff);
    ck_assert_uint_eq(plane_at(3, 0xa0012), 0x55);
    out_indexed(0x3ce, 3, 0x08); /* and */
    peek(0xa0010);
    poke(0xa0012, 0x03);
    ck_assert_uint_eq(plane_at(3, 0xa0012), 0x52);
    out_indexed(0x3ce, 3, 0x10); /* or */
    peek(0xa0010);
    poke(0xa0012, 0x05);
    ck_assert_uint_eq(plane_at(3, 0xa0012), 0x5f);

    out_indexed(0x3ce, 5, 1); /* mode 1: latches */
    peek(0xa0010);
    poke(0xa0013, 0);
    ck_assert_uint_eq(plane_at(0, 0xa0013), 0x5a);

    out_indexed(0x3ce, 3, 0);
    out_indexed(0x3ce, 5, 2); /* mode 2: a colour */
    out_indexed(0x3ce, 8, 0xf0);
    peek(0xa0010);
    poke(0xa0014, 0x0a);
    ck_assert_uint_eq(plane_at(0, 0xa0014), 0x0a);
    ck_assert_uint_eq(plane_at(1, 0xa0014), 0xfa);

    out_indexed(0x3ce, 0, 0x02);
    out_indexed(0x3ce, 5, 3); /* mode 3: a bit mask */
    out_indexed(0x3ce, 8, 0x3f);
    peek(0xa0010);
    poke(0xa0015, 0xf0);
    ck_assert_uint_eq(plane_at(0, 0xa0015), 0x4a);
    ck_assert_uint_eq(plane_at(1, 0xa0015), 0x7a);

    out_indexed(0x3ce, 2, 0x02); /* read mode 1: colour compare */
    out_indexed(0x3ce, 7, 0x03);
    out_indexed(0x3ce, 5, 0x08);
    ck_assert_uint_eq(peek(0xa0015), (uint8_t)(~0x4a & 0x7a));
}
END_TEST

START_TEST(chain4)
{
    set_planar(0x0f);
    out_indexed(0x3c4, 4, 0x0e);
    for (unsigned i = 0; i < 0x10000; i++)
        poke(0xa0000 + i, (uint8_t)(i ^ i >> 8));
    for (unsigned i = 0; i < 0x10000; i++)
        ck_assert_uint_eq(peek(0xa0000 + i), (uint8_t)(i ^ i >> 8));
    ck_assert_uint_eq(vga.plane[3][0x40], 0x43);
}
END_TEST

START_TEST(every_address_in_every_aperture)
{
    for (unsigned map = 0; map < 4; map++)
        for (unsigned mode = 0; mode < 16; mode += 4) {
            out_indexed(0x3c4, 2, 0x0f);
            out_indexed(0x3c4, 4, (uint8_t)mode);
            out_indexed(0x3ce, 6, (uint8_t)(map << 2));
            for (uint32_t address = 0xa0000; address < 0xc0000; address += 0x3ff) {
                poke(address, 0xc3);
                (void)peek(address);
            }
            (void)peek(0xbffff);
            poke(0xbffff, 1);
        }
    out(0x3c2, 0x65); /* RAM disabled */
    out_indexed(0x3ce, 6, 0);
    ck_assert_uint_eq(peek(0xa0000), 0xff);
}
END_TEST

/* ---- registers --------------------------------------------------------------------------------------- */

START_TEST(attribute_flip_flop)
{
    in(0x3da);
    out(0x3c0, 0x10);
    out(0x3c0, 0x08);
    in(0x3da);
    out(0x3c0, 0x10);
    ck_assert_uint_eq(in(0x3c1), 0x08);
    in(0x3da); /* back to expecting an index */
    out(0x3c0, 0x05);
    ck_assert_uint_eq(in(0x3c0), 0x05);
    out(0x3c0, 0x2a);
    ck_assert_uint_eq(in(0x3c1), 0x2a);
    out(0x3c0, 0x25); /* index 5 with the palette owned by the display */
    out(0x3c0, 0x11);
    ck_assert_uint_eq(in(0x3c1), 0x2a);
    out(0x3c0, 0x1f); /* no such register */
    out(0x3c0, 0xff);
    ck_assert_uint_eq(in(0x3c1), 0);
}
END_TEST

START_TEST(dac)
{
    out(0x3c8, 255);
    for (unsigned i = 0; i < 6; i++)
        out(0x3c9, (uint8_t)(0xc0 + i)); /* colour 255, then colour 0 */
    out(0x3c8, 1);
    out(0x3c9, 0x3f); /* one component does not change the colour */
    out(0x3c7, 255);
    ck_assert_uint_eq(in(0x3c7), 3);
    for (unsigned i = 0; i < 6; i++)
        ck_assert_uint_eq(in(0x3c9), i);
    ck_assert_uint_eq(in(0x3c9), 0); /* colour 1 is still blue */
    ck_assert_uint_eq(in(0x3c9), 0);
    ck_assert_uint_eq(in(0x3c9), 0x2a);
    ck_assert_uint_eq(in(0x3c8), 2);
    out(0x3c8, 7);
    ck_assert_uint_eq(in(0x3c7), 0);
    out(0x3c6, 0x0f);
    ck_assert_uint_eq(in(0x3c6), 0x0f);
}
END_TEST

START_TEST(crtc_protection)
{
    out_indexed(0x3d4, 0x00, 0x11); /* mode 3 leaves registers 0-7 protected */
    out_indexed(0x3d4, 0x07, 0x00);
    ck_assert_uint_eq(in_indexed(0x3d4, 0x00), 0x5f);
    ck_assert_uint_eq(in_indexed(0x3d4, 0x07), 0x0f); /* but for line compare bit 8 */
    out_indexed(0x3d4, 0x11, 0x0e);
    out_indexed(0x3d4, 0x00, 0x11);
    ck_assert_uint_eq(in_indexed(0x3d4, 0x00), 0x11);
    for (unsigned index = 0x19; index < 256; index++) {
        out_indexed(0x3d4, (uint8_t)index, 0xff);
        ck_assert_uint_eq(in_indexed(0x3d4, (uint8_t)index), 0);
        out_indexed(0x3c4, (uint8_t)index, 0xff);
        ck_assert_uint_eq(in_indexed(0x3c4, (uint8_t)index), 0);
        out_indexed(0x3ce, (uint8_t)index, 0xff);
        ck_assert_uint_eq(in_indexed(0x3ce, (uint8_t)index), 0);
    }
}
END_TEST

START_TEST(misc_and_monochrome)
{
    ck_assert_uint_eq(in(0x3cc), 0x67);
    out(0x3da, 0x02);
    ck_assert_uint_eq(in(0x3ca), 0x02);
    out(0x3c2, 0x66); /* CRTC and status move to 3Bx: nobody at 3Dx */
    ck_assert_uint_eq(in(0x3d4), 0xff);
    ck_assert_uint_eq(in(0x3da), 0xff);
    out_indexed(0x3d4, 0x0f, 9);
    out(0x3c2, 0x67);
    ck_assert_uint_eq(in_indexed(0x3d4, 0x0f), 0);
    ck_assert_uint_eq(in(0x3c3), 0xff);
}
END_TEST

/* Over one frame: 400 of 449 lines displayed, one retrace pulse of two lines, both bits seen in both states.
 */
START_TEST(retrace)
{
    unsigned rising = 0, off = 0, samples = 0;
    uint8_t before = 0;
    for (fake.now = 0; fake.now < 449ull * 31778; fake.now += 1000, samples++) {
        uint8_t status = in(0x3da);
        ck_assert_uint_eq(status & ~0x09, 0);
        if (status & 0x08)
            ck_assert_uint_eq(status & 0x01, 1);
        rising += (status & ~before & 0x08) != 0;
        off += status & 1;
        before = status;
    }
    ck_assert_uint_eq(rising, 1);
    ck_assert_uint_gt(off, samples / 4);
    ck_assert_uint_lt(off, samples / 3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vga");
    TCase *tcase = tcase_create("vga");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, text_reaches_the_screen);
    tcase_add_test(tcase, nothing_new_is_no_change);
    tcase_add_test(tcase, cursor);
    tcase_add_test(tcase, start_address_scrolls);
    tcase_add_test(tcase, start_address_at_every_extreme);
    tcase_add_test(tcase, reset_clears);
    tcase_add_test(tcase, font_in_plane_2);
    tcase_add_test(tcase, write_modes);
    tcase_add_test(tcase, chain4);
    tcase_add_test(tcase, every_address_in_every_aperture);
    tcase_add_test(tcase, attribute_flip_flop);
    tcase_add_test(tcase, dac);
    tcase_add_test(tcase, crtc_protection);
    tcase_add_test(tcase, misc_and_monochrome);
    tcase_add_test(tcase, retrace);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
