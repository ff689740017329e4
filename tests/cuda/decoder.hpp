//! A stand-in for NVIDIA's decoder: libnvcuvid.so.1, which knows the pictures of some access units by heart.
//!
//! In: access units with their pictures, told before; the decoder's interface as GStreamer calls it. Out: those pictures, in
//! device memory, written when their stream comes by and not before.
//! Included by driver.cpp, whose statics it uses. One file serves both libraries: the loader knows it by its inode.
//! Must not know: how a picture is decoded.
#pragma once

struct Picture {
    unsigned int width, height;
    std::string nv12;
};

// The beginning of CUVIDPARSERPARAMS.
struct ParserParameters {
    int codec;
    unsigned int numbers[9];
    void *user;
    int (*sequence)(void *, void *);
    int (*decode)(void *, void *);
    int (*display)(void *, void *);
};

// CUVIDEOFORMAT.
struct Format {
    int codec;
    unsigned int rate[2];
    unsigned char is_progressive, luma_bits, chroma_bits, surfaces;
    unsigned int width, height;
    int area[4];
    int chroma;
    unsigned int bitrate;
    int aspect[2];
    unsigned char signal[4];
    unsigned int header_bytes;
};

struct Packet {
    unsigned long flags, bytes;
    const unsigned char *payload;
    long long timestamp;
};

struct Parser {
    ParserParameters parameters;
    unsigned int width = 0, height = 0;
    int next = 0;
};

enum { PICTURES = 8 };

struct Decoder {
    size_t width, height, pitch;
    uint64_t surface = 0;
    bool is_mapped = false;
    const Picture *pictures[PICTURES] = {};
};

enum { H264 = 4, H265 = 8 };

static std::map<uint64_t, Picture> film;
static std::set<Decoder *> decoders;
static uint64_t decoders_max = 1000, unknown;

// A picture is known by its slices: what is around them is put differently by whoever carries it.
static uint64_t hash_of(const unsigned char *unit, size_t bytes, int codec) {
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t at = 0; at + 3 < bytes;) {
        if (unit[at] || unit[at + 1] || unit[at + 2] != 1) {
            at++;
            continue;
        }
        size_t end = at += 3;
        while (end < bytes && !(end + 2 < bytes && !unit[end] && !unit[end + 1] && unit[end + 2] <= 1)) end++;
        const int kind = codec == H265 ? unit[at] >> 1 & 63 : unit[at] & 31;
        if (codec == H265 ? kind < 32 : kind == 1 || kind == 5)
            for (; at < end; at++) hash = (hash ^ unit[at]) * 0x100000001b3;
        at = end;
    }
    return hash;
}

extern "C" {

int cuvidGetDecoderCaps(void *caps) {
    const int *in = static_cast<int *>(caps);
    const bool is_known = (in[0] == H264 || in[0] == H265) && in[1] == 1 && in[2] == 0;
    unsigned char *out = static_cast<unsigned char *>(caps) + 24;
    const unsigned int most[3] = {4096, 4096, 65536};
    const unsigned short least[2] = {48, 16};
    out[0] = is_known;
    out[1] = 1;
    std::memcpy(out + 4, most, sizeof most);
    std::memcpy(out + 16, least, sizeof least);
    return SUCCESS;
}

int cuvidCreateVideoParser(Parser **parser, const ParserParameters *parameters) {
    *parser = new Parser{*parameters};
    return SUCCESS;
}

int cuvidDestroyVideoParser(Parser *parser) {
    delete parser;
    return SUCCESS;
}

// Without the lock: whoever is called back may wait for others.
int cuvidParseVideoData(Parser *parser, Packet *packet) {
    if (!packet->payload || packet->bytes == 0) return SUCCESS;
    const Picture *picture = nullptr;
    {
        std::lock_guard<std::recursive_mutex> lock(guard);
        auto found = film.find(hash_of(packet->payload, packet->bytes, parser->parameters.codec));
        if (found == film.end()) {
            unknown++;
            return SUCCESS;
        }
        picture = &found->second;
    }
    void *user = parser->parameters.user;
    if (parser->width != picture->width || parser->height != picture->height) {
        const unsigned int w = picture->width, h = picture->height;
        Format format = {parser->parameters.codec, {25, 1}, 1, 0, 0, 4, (w + 15) / 16 * 16, (h + 15) / 16 * 16, {0, 0, int(w), int(h)}, 1, 0, {1, 1}, {5, 1, 1, 1}, 0};
        if (!parser->parameters.sequence(user, &format)) return INVALID_VALUE;
        parser->width = w;
        parser->height = h;
    }
    const int index = parser->next = (parser->next + 1) % PICTURES;
    // CUVIDPICPARAMS: the index is its third number, the bit stream begins at its 32nd byte.
    char parameters[8192] = {};
    std::memcpy(parameters + 8, &index, sizeof index);
    std::memcpy(parameters + 32, &picture, sizeof picture);
    if (!parser->parameters.decode(user, parameters)) return INVALID_VALUE;
    struct {
        int index, is_progressive, top_first, repeat;
        long long timestamp;
    } shown = {index, 1, 0, 0, packet->timestamp};
    return parser->parameters.display(user, &shown) ? SUCCESS : INVALID_VALUE;
}

// CUVIDDECODECREATEINFO: the size of pictures stands at its 96th byte.
int cuvidCreateDecoder(Decoder **decoder, const char *info) {
    BEGIN("cuvidCreateDecoder");
    if (decoders.size() >= decoders_max) return 2;
    Decoder *made = new Decoder;
    std::memcpy(&made->width, info + 96, sizeof made->width);
    std::memcpy(&made->height, info + 104, sizeof made->height);
    made->pitch = (made->width + 511) / 512 * 512;
    if (int code = cuMemAlloc_v2(&made->surface, made->pitch * (made->height + (made->height + 1) / 2))) {
        delete made;
        return code;
    }
    decoders.insert(*decoder = made);
    return SUCCESS;
}

int cuvidDestroyDecoder(Decoder *decoder) {
    BEGIN_GIVING_BACK("cuvidDestroyDecoder");
    if (!decoders.erase(decoder)) return INVALID_VALUE;
    if (decoder->is_mapped) accuse("a decoder is destroyed while its picture is mapped");
    // A real one waits for what still writes its pictures.
    run_default();
    cuMemFree_v2(decoder->surface);
    delete decoder;
    return answer;
}

int cuvidDecodePicture(Decoder *decoder, const char *parameters) {
    BEGIN("cuvidDecodePicture");
    int index;
    std::memcpy(&index, parameters + 8, sizeof index);
    std::memcpy(&decoder->pictures[index], parameters + 32, sizeof(Picture *));
    return SUCCESS;
}

// CUVIDPROCPARAMS: the stream that the picture is written in stands at its 56th byte.
int cuvidMapVideoFrame64(Decoder *decoder, int index, uint64_t *address, unsigned int *pitch, const char *parameters) {
    BEGIN("cuvidMapVideoFrame");
    if (decoder->is_mapped) accuse("a second picture of a decoder is mapped");
    Stream *stream;
    std::memcpy(&stream, parameters + 56, sizeof stream);
    const Picture *picture = decoder->pictures[index];
    Memory *memory = memory_at(decoder->surface);
    const size_t rows = picture->nv12.size() / picture->width, apart = decoder->pitch;
    char *to = memory->alias;
    auto work = [=] {
        for (size_t row = 0; row < rows; row++) std::memcpy(to + row * apart, picture->nv12.data() + row * picture->width, picture->width);
    };
    // A decoder without a stream of its own writes in the default one, which is waited for here.
    if (!stream)
        work();
    else if (streams.count(stream))
        stream->work.push_back({work, nullptr, {decoder->surface}, 0, 0, 0, false});
    else
        return INVALID_VALUE;
    decoder->is_mapped = true;
    *address = decoder->surface;
    *pitch = static_cast<unsigned int>(apart);
    return SUCCESS;
}

int cuvidUnmapVideoFrame64(Decoder *decoder, uint64_t address) {
    BEGIN_GIVING_BACK("cuvidUnmapVideoFrame");
    // GStreamer does not wait where a copy has failed: nobody sees what it has copied by then.
    if (is_used(nullptr, address) && failed != "cuMemcpy2DAsync") accuse("a decoder's picture is unmapped while a queued copy reads it");
    decoder->is_mapped = false;
    return answer;
}

NEVER(cuvidCtxLockCreate)
NEVER(cuvidCtxLockDestroy)
NEVER(cuvidCtxLock)
NEVER(cuvidCtxUnlock)

// Teaches the decoder what an access unit shows: rows of luma, then rows of pairs, close to each other.
void stub_picture(const unsigned char *unit, size_t bytes, int codec, unsigned int width, unsigned int height, const char *nv12) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    const size_t size = static_cast<size_t>(width) * (height + (height + 1) / 2);
    film[hash_of(unit, bytes, codec)] = {width, height, std::string(nv12, size)};
}

// Lets there be so many decoders at once.
void stub_decoders(uint64_t most) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    decoders_max = most;
}

// How many access units nobody had told of.
uint64_t stub_unknown() {
    std::lock_guard<std::recursive_mutex> lock(guard);
    return unknown;
}
}
