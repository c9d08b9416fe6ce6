/*
 * The registers, virtual and real side by side: what the guest believes the processor to hold, and what the
 * processor holds while the guest runs. Where the two differ is what de-privileging has to hide. Read next:
 * step_walk.c.
 */
#include "monitor/step_print.h"
#include "monitor/trace.h"

#define VIRTUAL_COLUMN 44

struct flag {
    const char *name;
    uint32_t bit;
};

static const struct flag eflags_names[] = {
    {"cf", EFLAGS_CF}, {"pf", EFLAGS_PF}, {"af", EFLAGS_AF}, {"zf", EFLAGS_ZF}, {"sf", EFLAGS_SF},
    {"tf", EFLAGS_TF}, {"IF", EFLAGS_IF}, {"df", EFLAGS_DF}, {"of", EFLAGS_OF}, {"nt", EFLAGS_NT},
    {"rf", EFLAGS_RF}, {"vm", EFLAGS_VM}, {"ac", EFLAGS_AC}, {"id", EFLAGS_ID},
};
static const struct flag cr0_names[] = {
    {"PE", CR0_PE}, {"MP", CR0_MP}, {"EM", CR0_EM}, {"TS", CR0_TS}, {"NE", CR0_NE},
    {"WP", CR0_WP}, {"AM", CR0_AM}, {"NW", CR0_NW}, {"CD", CR0_CD}, {"PG", CR0_PG},
};
static const struct flag cr4_names[] = {
    {"VME", CR4_VME},
    {"PVI", CR4_PVI},
    {"TSD", CR4_TSD},
    {"DE", CR4_DE},
    {"PSE", CR4_PSE},
    {"PAE", CR4_PAE},
    {"MCE", CR4_MCE},
    {"PGE", CR4_PGE},
    {"PCE", CR4_PCE},
    {"OSFXSR", CR4_OSFXSR},
    {"OSXMMEXCPT", CR4_OSXMMEXCPT},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void format_flags(uint32_t value, const struct flag *flags, size_t n_flags, char *text, size_t size)
{
    size_t length = 0;

    text[0] = '\0';
    for (size_t i = 0; i < n_flags; i++)
        if ((value & flags[i].bit) != 0 && length < size)
            length += (size_t)snprintf(text + length, size - length, " %s", flags[i].name);
}

static void format_eflags(uint32_t eflags, char *text, size_t size)
{
    char names[80];

    format_flags(eflags, eflags_names, COUNT(eflags_names), names, sizeof names);
    snprintf(text, size, "%08x iopl=%u%s", eflags, (eflags & EFLAGS_IOPL) >> EFLAGS_IOPL_SHIFT, names);
}

static void format_segment(const struct segment *segment, bool has_selector, char *text, size_t size)
{
    char selector[8] = "----";
    unsigned dpl = (segment->attributes & SEGMENT_DPL) >> SEGMENT_DPL_SHIFT;

    if (has_selector)
        snprintf(selector, sizeof selector, "%04x", segment->selector);
    if ((segment->attributes & SEGMENT_P) == 0)
        snprintf(text, size, "%s (unusable)", selector);
    else
        snprintf(text, size, "%s %08x+%08x %s%s dpl %u", selector, segment->base, segment->limit,
                 (segment->attributes & SEGMENT_CODE)   ? "code"
                 : (segment->attributes & SEGMENT_DOWN) ? "down"
                                                        : "data",
                 (segment->attributes & SEGMENT_DB) ? "32" : "16", dpl);
}

static void print_pair(const char *name, const char *virtual, const char *real, FILE *out)
{
    fprintf(out, "%-7s %-*s %s\n", name, VIRTUAL_COLUMN, virtual, real);
}

static void print_segments(const struct vcpu *vcpu, const struct real_registers *real, FILE *out)
{
    static const char *const names[SEG_COUNT] = {"es", "cs", "ss", "ds", "fs", "gs"};
    static const int order[SEG_COUNT] = {SEG_CS, SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS};

    for (unsigned i = 0; i < SEG_COUNT; i++) {
        int index = order[i];
        char virtual[64], host[64] = "";

        format_segment(&vcpu->segment[index], true, virtual, sizeof virtual);
        if (real != NULL && real->is_loaded[index] && real->segment[index].selector != 0 &&
            real->segment[index].attributes == 0)
            snprintf(host, sizeof host, "%04x loaded natively: a hole", real->segment[index].selector);
        else if (real != NULL)
            format_segment(&real->segment[index], real->is_loaded[index], host, sizeof host);
        print_pair(names[index], virtual, host, out);
    }
}

static void print_general(const struct vcpu *vcpu, FILE *out)
{
    const uint32_t *gpr = vcpu->gpr;

    fprintf(out, "eax %08x  ecx %08x  edx %08x  ebx %08x   (the same in both)\n", gpr[EAX], gpr[ECX],
            gpr[EDX], gpr[EBX]);
    fprintf(out, "esp %08x  ebp %08x  esi %08x  edi %08x\n", gpr[ESP], gpr[EBP], gpr[ESI], gpr[EDI]);
}

static void print_system(const struct vcpu *vcpu, FILE *out)
{
    char names[80], text[128];

    format_flags(vcpu->cr0, cr0_names, COUNT(cr0_names), names, sizeof names);
    snprintf(text, sizeof text, "%08x%s", vcpu->cr0, names);
    print_pair("cr0", text, "the host's", out);
    snprintf(text, sizeof text, "%08x", vcpu->cr2);
    print_pair("cr2", text, "", out);
    snprintf(text, sizeof text, "%08x", vcpu->cr3);
    print_pair("cr3", text, "the host's: its mappings are the shadow (walk)", out);
    format_flags(vcpu->cr4, cr4_names, COUNT(cr4_names), names, sizeof names);
    snprintf(text, sizeof text, "%08x%s", vcpu->cr4, names);
    print_pair("cr4", text, "the host's", out);
    snprintf(text, sizeof text, "%08x+%04x", vcpu->gdtr.base, vcpu->gdtr.limit);
    print_pair("gdtr", text, "the host's: mirrored in the LDT", out);
    snprintf(text, sizeof text, "%08x+%04x", vcpu->idtr.base, vcpu->idtr.limit);
    print_pair("idtr", text, "the host's: gates are walked by the monitor", out);
    snprintf(text, sizeof text, "%04x %08x+%08x", vcpu->ldtr.selector, vcpu->ldtr.base, vcpu->ldtr.limit);
    print_pair("ldtr", text, "the host's, of this process", out);
    snprintf(text, sizeof text, "%04x %08x+%08x", vcpu->tr.selector, vcpu->tr.base, vcpu->tr.limit);
    print_pair("tr", text, "the host's", out);
}

static void print_odd_states(const struct vcpu *vcpu, FILE *out)
{
    if (vcpu->halted)
        fputs("halted, waiting for an interrupt\n", out);
    if (vcpu->interrupt_shadow != SHADOW_NONE)
        fprintf(out, "in the shadow of %s: no interrupt before the next instruction has run\n",
                vcpu->interrupt_shadow == SHADOW_STI ? "STI" : "MOV SS");
    if (vcpu->nmi_blocked || vcpu->nmi_pending)
        fprintf(out, "NMI%s%s\n", vcpu->nmi_pending ? " pending" : "", vcpu->nmi_blocked ? " blocked" : "");
}

void step_print_registers(struct vm *vm, FILE *out)
{
    const struct vcpu *vcpu = &vm->vcpu;
    struct real_registers real = {0};
    bool has_real = vm->engine->registers != NULL;
    char virtual[128], host[128] = "";

    if (has_real)
        vm->engine->registers(vm->engine_state, &real);
    print_pair("", "virtual", has_real ? "real, while the guest runs" : "", out);
    snprintf(virtual, sizeof virtual, "%u", vcpu->cpl);
    snprintf(host, sizeof host, "%u", real.cpl);
    print_pair("cpl", virtual, has_real ? host : "", out);
    snprintf(virtual, sizeof virtual, "%08x", vcpu->eip);
    print_pair("eip", virtual, "the same", out);
    format_eflags(vcpu->eflags, virtual, sizeof virtual);
    format_eflags(real.eflags, host, sizeof host);
    print_pair("eflags", virtual, has_real ? host : "", out);
    print_segments(vcpu, has_real ? &real : NULL, out);
    print_general(vcpu, out);
    print_system(vcpu, out);
    print_odd_states(vcpu, out);
}
