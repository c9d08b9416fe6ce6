/* Where stub_enter.S finds the members of struct stub_context (stub.h); stub.c asserts each. */
#ifndef RING3_VCPU_STUB_OFFSETS_H
#define RING3_VCPU_STUB_OFFSETS_H

#define STUB_EAX      0
#define STUB_ECX      4
#define STUB_EDX      8
#define STUB_EBX      12
#define STUB_EBP      20
#define STUB_ESI      24
#define STUB_EDI      28
#define STUB_FLAGS    32
#define STUB_CODE     40
#define STUB_LEAVE    48
#define STUB_FPU      56
#define STUB_HOST_FPU 64

#endif
