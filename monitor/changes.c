/*
 * What an exit changed: two states of the processor compared, register by register, from one table of what
 * there is to compare. Read next: trace.c.
 */
#include <stdio.h>
#include <string.h>

#include "monitor/trace.h"

enum field_kind { FIELD_HEX8, FIELD_HEX16, FIELD_HEX32, FIELD_HEX64, FIELD_BITS };

struct field {
    const char *name; /* followed by a number where there are several */
    size_t offset;
    enum field_kind kind;
    uint32_t mask;  /* FIELD_BITS: shown shifted down, in decimal */
    unsigned count; /* so many in a row */
};

#define FIELD(name, member, kind, mask, count)                                                               \
    {                                                                                                        \
        name, offsetof(struct vcpu, member), kind, mask, count                                               \
    }
#define HEX8(name, member)  FIELD(name, member, FIELD_HEX8, 0, 1)
#define HEX16(name, member) FIELD(name, member, FIELD_HEX16, 0, 1)
#define HEX32(name, member) FIELD(name, member, FIELD_HEX32, 0, 1)
#define HEX64(name, member) FIELD(name, member, FIELD_HEX64, 0, 1)
#define HEX64S(name, member)                                                                                 \
    FIELD(name, member, FIELD_HEX64, 0, sizeof(((struct vcpu *)0)->member) / sizeof(uint64_t))
#define FLAG(name, member, mask) FIELD(name, member, FIELD_BITS, mask, 1)

/* eip is not here (the record says where the guest resumes), nor are the hidden parts of segments (they
 * follow from selector and tables), nor the x87 and SSE registers. */
static const struct field fields[] = {
    FLAG("IF_virt", eflags, EFLAGS_IF),
    FLAG("IOPL_virt", eflags, EFLAGS_IOPL),
    FLAG("CF", eflags, EFLAGS_CF),
    FLAG("PF", eflags, EFLAGS_PF),
    FLAG("AF", eflags, EFLAGS_AF),
    FLAG("ZF", eflags, EFLAGS_ZF),
    FLAG("SF", eflags, EFLAGS_SF),
    FLAG("OF", eflags, EFLAGS_OF),
    FLAG("DF", eflags, EFLAGS_DF),
    FLAG("TF", eflags, EFLAGS_TF),
    FLAG("NT", eflags, EFLAGS_NT),
    FLAG("RF", eflags, EFLAGS_RF),
    FLAG("VM", eflags, EFLAGS_VM),
    FLAG("AC", eflags, EFLAGS_AC),
    FLAG("ID", eflags, EFLAGS_ID),
    HEX8("cpl", cpl),
    HEX32("eax", gpr[EAX]),
    HEX32("ecx", gpr[ECX]),
    HEX32("edx", gpr[EDX]),
    HEX32("ebx", gpr[EBX]),
    HEX32("esp", gpr[ESP]),
    HEX32("ebp", gpr[EBP]),
    HEX32("esi", gpr[ESI]),
    HEX32("edi", gpr[EDI]),
    HEX16("es", segment[SEG_ES].selector),
    HEX16("cs", segment[SEG_CS].selector),
    HEX16("ss", segment[SEG_SS].selector),
    HEX16("ds", segment[SEG_DS].selector),
    HEX16("fs", segment[SEG_FS].selector),
    HEX16("gs", segment[SEG_GS].selector),
    HEX16("ldtr", ldtr.selector),
    HEX16("tr", tr.selector),
    HEX32("gdtr.base", gdtr.base),
    HEX16("gdtr.limit", gdtr.limit),
    HEX32("idtr.base", idtr.base),
    HEX16("idtr.limit", idtr.limit),
    FLAG("CR0.PE", cr0, CR0_PE),
    FLAG("CR0.MP", cr0, CR0_MP),
    FLAG("CR0.EM", cr0, CR0_EM),
    FLAG("CR0.TS", cr0, CR0_TS),
    FLAG("CR0.NE", cr0, CR0_NE),
    FLAG("CR0.WP", cr0, CR0_WP),
    FLAG("CR0.AM", cr0, CR0_AM),
    FLAG("CR0.NW", cr0, CR0_NW),
    FLAG("CR0.CD", cr0, CR0_CD),
    FLAG("CR0.PG", cr0, CR0_PG),
    HEX32("cr2", cr2),
    HEX32("cr3", cr3),
    HEX32("cr4", cr4),
    HEX64S("pdpte", pdpte),
    HEX32("dr0", dr[0]),
    HEX32("dr1", dr[1]),
    HEX32("dr2", dr[2]),
    HEX32("dr3", dr[3]),
    HEX32("dr6", dr[6]),
    HEX32("dr7", dr[7]),
    HEX64("sysenter_cs", msr.sysenter_cs),
    HEX64("sysenter_esp", msr.sysenter_esp),
    HEX64("sysenter_eip", msr.sysenter_eip),
    HEX64("apic_base", msr.apic_base),
    HEX64("pat", msr.pat),
    HEX64("efer", msr.efer),
    HEX64("misc_enable", msr.misc_enable),
    HEX64("tsc_offset", msr.tsc_offset),
    HEX64("mtrr_def_type", msr.mtrr_def_type),
    HEX64S("mtrr_fixed", msr.mtrr_fixed),
    HEX64S("mtrr_variable", msr.mtrr_variable),
    HEX64("kvm_wall_clock", msr.kvm_wall_clock),
    HEX64("kvm_system_time", msr.kvm_system_time),
    HEX64("kvm_steal_time", msr.kvm_steal_time),
    HEX8("halted", halted),
    HEX8("nmi_blocked", nmi_blocked),
};

static const unsigned field_bytes[] = {
    [FIELD_HEX8] = 1, [FIELD_HEX16] = 2, [FIELD_HEX32] = 4, [FIELD_HEX64] = 8, [FIELD_BITS] = 4};

static uint64_t field_value(const struct field *field, unsigned index, const struct vcpu *vcpu)
{
    unsigned n = field_bytes[field->kind];
    uint64_t value = 0;

    memcpy(&value, (const char *)vcpu + field->offset + (size_t)index * n, n);
    if (field->kind == FIELD_BITS)
        value = (value & field->mask) / (field->mask & -field->mask);
    return value;
}

static void format_change(const struct field *field, unsigned index, uint64_t old, uint64_t new, char *text,
                          size_t size)
{
    int digits = (int)field_bytes[field->kind] * 2;
    char number[16] = "";

    if (field->count > 1)
        snprintf(number, sizeof number, "%u", index);
    if (field->kind == FIELD_BITS || field->kind == FIELD_HEX8)
        snprintf(text, size, "%s%s %u→%u", field->name, number, (unsigned)old, (unsigned)new);
    else
        snprintf(text, size, "%s%s %0*llx→%0*llx", field->name, number, digits, (unsigned long long)old,
                 digits, (unsigned long long)new);
}

size_t trace_changes(const struct vcpu *before, const struct vcpu *after, char texts[][CHANGE_TEXT_SIZE],
                     size_t max)
{
    size_t n = 0;

    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const struct field *field = &fields[i];

        for (unsigned index = 0; index < field->count; index++) {
            uint64_t old = field_value(field, index, before), new = field_value(field, index, after);

            if (old == new)
                continue;
            if (n < max)
                format_change(field, index, old, new, texts[n], CHANGE_TEXT_SIZE);
            n++;
        }
    }
    return n;
}
