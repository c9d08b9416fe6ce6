/*
 * decode: bytes -> instruction, and the Popek-Goldberg class of that instruction.
 *
 * Pure: no memory but the caller's, no signals, no globals that change. All x86 decoding and disassembly text
 * is Zydis's; what is ours is the compact `struct insn` and *the* table of sensitive instructions
 * (sensitive.c), from which `ring3 check`, the trace, the emulator and docs/sensitive.md all draw.
 *
 * Read next: sensitive.def (the table), then decode.c.
 */
#ifndef RING3_DECODE_H
#define RING3_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INSN_MAX_LENGTH   15
#define INSN_MAX_OPERANDS 5

/* ---- the instruction --------------------------------------------------------------------------------- */

enum operand_kind {
    OPERAND_NONE,
    OPERAND_REGISTER,
    OPERAND_MEMORY,
    OPERAND_IMMEDIATE, /* value, already sign-extended to 64 bits where the instruction does so */
    OPERAND_RELATIVE,  /* branch displacement from the end of the instruction */
    OPERAND_FAR,       /* ptr16:16 / ptr16:32 */
};

enum register_class {
    REGISTER_NONE,
    REGISTER_GPR8, /* index 0-3 al cl dl bl, 4-7 ah ch dh bh */
    REGISTER_GPR16,
    REGISTER_GPR32,
    REGISTER_SEGMENT, /* index in the order of enum segment_index */
    REGISTER_CONTROL,
    REGISTER_DEBUG,
    REGISTER_X87,
    REGISTER_MMX,
    REGISTER_XMM,
    REGISTER_OTHER, /* flags, eip, gdtr, ...: never an explicit operand of what we emulate */
};

/* The hardware's numbering in ModRM.reg and in the prefixes. */
enum segment_index { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

enum operand_access {
    OPERAND_READ = 1,
    OPERAND_WRITE = 2,
};

struct operand {
    uint8_t kind;     /* enum operand_kind */
    uint8_t size;     /* bytes; 0 where there is none (lea's agen, fxsave: 512 does not fit, see size16) */
    uint8_t access;   /* enum operand_access, conditional accesses included */
    bool is_implicit; /* not encoded in ModRM/immediate (al of xlat, the memory of movs/stos/push) */
    union {
        struct {
            uint8_t class; /* enum register_class */
            uint8_t index;
        } reg;
        struct {
            uint8_t segment; /* enum segment_index, overrides applied */
            int8_t base;     /* GPR number, or -1 */
            int8_t index;    /* GPR number, or -1 */
            uint8_t scale;   /* 1, 2, 4, 8 */
            int32_t displacement;
            bool is_address_only; /* lea, invlpg: the address is computed and nothing is accessed */
        } mem;
        int64_t immediate; /* also OPERAND_RELATIVE */
        struct {
            uint16_t selector;
            uint32_t offset;
        } far;
    };
    uint16_t size16; /* bytes, also for operands over 255 (fxsave) */
};

enum insn_prefix {
    INSN_LOCK = 1,
    INSN_REP = 2,   /* F3 as repeat: rep, repe */
    INSN_REPNE = 4, /* F2 as repeat */
};

struct sensitive;

struct insn {
    uint8_t bytes[INSN_MAX_LENGTH];
    uint8_t length;
    uint8_t operand_size; /* effective: 2 or 4 bytes (8-bit forms say so in their operands) */
    uint8_t address_size; /* effective: 2 or 4 bytes */
    uint8_t prefixes;     /* enum insn_prefix */
    uint8_t opcode_map;   /* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A, 0xff: VEX and other */
    uint8_t opcode;
    bool has_modrm;
    uint8_t modrm_offset;                       /* in bytes[], where has_modrm */
    uint8_t opcode_offset;                      /* of `opcode` in bytes[] */
    uint8_t immediate_offset, immediate_length; /* 0, 0: none */
    uint16_t mnemonic;                          /* enum ZydisMnemonic_ */
    uint8_t isa_set;                            /* enum ZydisISASet_: which extension brought it */
    uint8_t n_operands;
    struct operand
        operand[INSN_MAX_OPERANDS];    /* explicit ones first, in Intel order, then implicit memory ones */
    const struct sensitive *sensitive; /* row of the table, or NULL: innocuous */
};

enum decode_status {
    DECODE_OK,
    DECODE_TRUNCATED, /* more bytes are needed: the caller's buffer (or the mapped page) ends inside it */
    DECODE_TOO_LONG,  /* more than 15 bytes: #GP */
    DECODE_INVALID,   /* no such instruction: #UD */
};

/* Decodes one instruction. default_size is 4 for a CS with D=1, else 2. Looks at no more than `n` bytes. */
enum decode_status decode_insn(const uint8_t *bytes, size_t n, unsigned default_size, struct insn *insn);
const char *decode_status_name(enum decode_status status);

/* Intel-syntax text, NUL-terminated, cut at `size`. `eip` resolves relative targets. */
void decode_format(const struct insn *insn, uint32_t eip, char *text, size_t size);
const char *decode_mnemonic_name(const struct insn *insn);

/* The explicit memory operand that is accessed (not address-only), or NULL. */
const struct operand *insn_memory_operand(const struct insn *insn);

/* ---- the table of sensitive instructions --------------------------------------------------------------- */

/* Popek & Goldberg 1974: control-sensitive changes the resource state, behaviour-sensitive depends on it. */
enum sensitive_class {
    CLASS_CONTROL = 1,
    CLASS_BEHAVIOUR = 2,
};

/* What happens when ring 3 on a 64-bit Linux host executes it. */
enum substrate {
    SUBSTRATE_TRAPS,       /* always an exception: privileged here */
    SUBSTRATE_HOLE,        /* executes, and silently differs: the holes */
    SUBSTRATE_CONDITIONAL, /* traps or not by its operand (a selector the host accepts), by the mode, or by
                              the host (see note) */
    SUBSTRATE_HOST_CALL,   /* enters the host kernel: int 0x80 (sysenter and syscall do on some processors) */
};

/* Which emulation routine of vcpu/ runs it. One enumerator per row group; vcpu maps it to a function. */
enum sensitive_handler {
#define SENSITIVE_HANDLER(name) HANDLE_##name,
#include "decode/sensitive_handlers.def"
#undef SENSITIVE_HANDLER
    HANDLE_COUNT
};

struct sensitive {
    const char *name;  /* upper case, as the SDM names the group: "MOV to CR" */
    const char *state; /* what it reads or changes */
    const char *note;  /* when conditional: when; else "" or what is seen */
    enum substrate substrate;
    enum sensitive_handler handler;
    uint16_t mnemonic;    /* enum ZydisMnemonic_ */
    uint8_t classes;      /* enum sensitive_class, or'ed */
    bool is_privileged;   /* the architecture faults it at CPL 3 (given IOPL where it counts) */
    bool in_robin_irvine; /* on the list of 17 (18) */
    bool needs_patch;     /* can run without any trap that the monitor sees, in a way a kernel may meet */
};

/* All rows, in the order of sensitive.def. */
const struct sensitive *sensitive_table(size_t *n);
/* The row of an instruction, by mnemonic and operands (mov is sensitive only with CR, DR or segment
 * operands); NULL: innocuous. */
const struct sensitive *sensitive_find(const struct insn *insn);
const char *
sensitive_class_name(const struct sensitive *row); /* "control", "behaviour", "control+behaviour" */
const char *substrate_name(enum substrate substrate);
/* True where the instruction would execute on the host without any trap the monitor sees, and so needs
 * patching. */
bool sensitive_is_hole(const struct sensitive *row);

/* ---- the CPUID profile --------------------------------------------------------------------------------- */

/* The virtual CPU offers one fixed instruction set on every host: i686 + FXSR, SSE, SSE2. An instruction
 * outside it is #UD where the engine sees it. */
bool decode_is_in_profile(const struct insn *insn);

#endif
