/* Private to decode/: the constant Zydis decoder for a default size of 4 or 2 bytes. */
#ifndef RING3_ZYDIS_DECODER_H
#define RING3_ZYDIS_DECODER_H

#include <Zydis/Zydis.h>

const ZydisDecoder *decode_zydis_decoder(unsigned default_size);

#endif
