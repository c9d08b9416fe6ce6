/*
 * Looking up the table of sensitive instructions (sensitive.def): one array access by mnemonic, then, for the
 * few mnemonics that are sensitive with some operands only, a look at those.
 *
 * Read next: profile.c, which knows the two families at the table's end.
 */
#include <Zydis/Zydis.h>

#include "decode/decode.h"
#include "decode/profile.h"

/* What the operands have to be for the row to apply. */
enum operand_form {
    FORM_ANY,
    FORM_FROM_CONTROL,
    FORM_TO_CONTROL,
    FORM_FROM_DEBUG,
    FORM_TO_DEBUG,
    FORM_FROM_SEGMENT,
    FORM_TO_SEGMENT,
    FORM_FAR,
    FORM_HOST_VECTOR, /* the one interrupt gate that Linux opens to 32-bit programs */
};

#define HOST_VECTOR 0x80

/* The columns of sensitive.def as values. */
enum { COLUMN_FREE, COLUMN_PRIVILEGED };
enum { COLUMN_NONE, COLUMN_RI };
enum { COLUMN_KEEP, COLUMN_PATCH };
#define CLASS_BOTH (CLASS_CONTROL | CLASS_BEHAVIOUR)

static const struct sensitive rows[] = {
#define SENSITIVE(mnemonic_, operands_, name_, privileged_, class_, list_, substrate_, patch_, handler_,     \
                  state_, note_)                                                                             \
    {.name = (name_),                                                                                        \
     .state = (state_),                                                                                      \
     .note = (note_),                                                                                        \
     .substrate = SUBSTRATE_##substrate_,                                                                    \
     .handler = HANDLE_##handler_,                                                                           \
     .mnemonic = ZYDIS_MNEMONIC_##mnemonic_,                                                                 \
     .classes = CLASS_##class_,                                                                              \
     .is_privileged = COLUMN_##privileged_,                                                                  \
     .in_robin_irvine = COLUMN_##list_,                                                                      \
     .needs_patch = COLUMN_##patch_},
#define SENSITIVE_FORM SENSITIVE
#include "decode/sensitive.def"
#undef SENSITIVE
#undef SENSITIVE_FORM
};

#define ROW_COUNT (sizeof rows / sizeof rows[0])
static const struct sensitive *const row_outside_profile = &rows[ROW_COUNT - 2];
static const struct sensitive *const row_fpu = &rows[ROW_COUNT - 1];

static const uint8_t forms[ROW_COUNT] = {
#define SENSITIVE(mnemonic, operands, ...) FORM_##operands,
#define SENSITIVE_FORM                     SENSITIVE
#include "decode/sensitive.def"
#undef SENSITIVE
#undef SENSITIVE_FORM
};

/* The place of the first row of each mnemonic: the table counted with the further forms, which have no entry.
 */
enum {
#define SENSITIVE(mnemonic, ...)                ROW_##mnemonic,
#define SENSITIVE_FORM(mnemonic, operands, ...) ROW_##mnemonic##_##operands,
#include "decode/sensitive.def"
#undef SENSITIVE
#undef SENSITIVE_FORM
};

static const uint8_t first_row[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
/* one more than the index; 0: none */
#define SENSITIVE(mnemonic, ...) [ZYDIS_MNEMONIC_##mnemonic] = ROW_##mnemonic + 1,
#define SENSITIVE_FORM(...)
#include "decode/sensitive.def"
#undef SENSITIVE
#undef SENSITIVE_FORM
};
_Static_assert(ROW_COUNT < UINT8_MAX, "first_row holds bytes");

static bool is_register(const struct insn *insn, unsigned i, enum register_class class)
{
    return i < insn->n_operands && insn->operand[i].kind == OPERAND_REGISTER &&
           insn->operand[i].reg.class == class;
}

/* SDM Vol 2 JMP, CALL, RET: EA, 9A; FF /5, FF /3; CA, CB. */
static bool is_far(const struct insn *insn)
{
    if (insn->opcode_map != 0)
        return false;
    switch (insn->opcode) {
    case 0x9a:
    case 0xea:
    case 0xca:
    case 0xcb:
        return true;
    case 0xff: {
        unsigned extension = (insn->bytes[insn->modrm_offset] >> 3) & 7;

        return extension == 3 || extension == 5;
    }
    default:
        return false;
    }
}

static bool has_form(const struct insn *insn, enum operand_form form)
{
    switch (form) {
    case FORM_ANY:
        return true;
    case FORM_FROM_CONTROL:
        return is_register(insn, 1, REGISTER_CONTROL);
    case FORM_TO_CONTROL:
        return is_register(insn, 0, REGISTER_CONTROL);
    case FORM_FROM_DEBUG:
        return is_register(insn, 1, REGISTER_DEBUG);
    case FORM_TO_DEBUG:
        return is_register(insn, 0, REGISTER_DEBUG);
    case FORM_FROM_SEGMENT: /* PUSH has it first, MOV second */
        return is_register(insn, insn->mnemonic == ZYDIS_MNEMONIC_PUSH ? 0 : 1, REGISTER_SEGMENT);
    case FORM_TO_SEGMENT:
        return is_register(insn, 0, REGISTER_SEGMENT);
    case FORM_FAR:
        return is_far(insn);
    case FORM_HOST_VECTOR:
        return insn->operand[0].immediate == HOST_VECTOR;
    }
    return false;
}

const struct sensitive *sensitive_find(const struct insn *insn)
{
    unsigned row = insn->mnemonic <= ZYDIS_MNEMONIC_MAX_VALUE ? first_row[insn->mnemonic] : 0;

    if (row != 0 && insn->mnemonic != ZYDIS_MNEMONIC_INVALID) {
        for (row--; rows[row].mnemonic == insn->mnemonic; row++) {
            if (has_form(insn, (enum operand_form)forms[row]))
                return &rows[row];
        }
        return NULL;
    }
    if (!decode_is_in_profile(insn))
        return row_outside_profile;
    return profile_is_fpu(insn) ? row_fpu : NULL;
}

const struct sensitive *sensitive_table(size_t *n)
{
    *n = ROW_COUNT;
    return rows;
}

bool sensitive_is_hole(const struct sensitive *row)
{
    return row->needs_patch;
}

const char *sensitive_class_name(const struct sensitive *row)
{
    static const char *const names[] = {
        [CLASS_CONTROL] = "control",
        [CLASS_BEHAVIOUR] = "behaviour",
        [CLASS_BOTH] = "control+behaviour",
    };

    return names[row->classes];
}

const char *substrate_name(enum substrate substrate)
{
    static const char *const names[] = {
        [SUBSTRATE_TRAPS] = "traps",
        [SUBSTRATE_HOLE] = "hole",
        [SUBSTRATE_CONDITIONAL] = "conditional",
        [SUBSTRATE_HOST_CALL] = "host call",
    };

    return names[substrate];
}
