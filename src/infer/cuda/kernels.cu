//! Letterboxes frames into a detector's input and aligns faces into an encoder's, in device memory.
//!
//! In: NV12 surfaces, tables of taps, similarity transforms. Out: planes of f32.
//! Drops what the host's path drops: samples of live video between the taps.
//! Must not know: the host. One source for NVRTC and, through a shim, for a C++ compiler.
//!
//! Every number is the host's to the bit (the package `kernels`: `letterbox.rs`, `crop.rs`): sums are integers, and
//! each f32 operation is the host's own, in its order. So contraction into fused multiply-adds has to
//! be off (`--fmad=false`), and nothing is divided or drawn a root of that the host could pass.

// Where memory has another address for whoever runs the kernels, the shim says which.
#ifndef DEVICE_POINTER
#define DEVICE_POINTER(type, address) reinterpret_cast<type *>(address)
#endif

typedef unsigned long long Address;

// How luma and chroma become red, green and blue: `colour::ToRgb`.
struct ToRgb {
    float luma_zero;
    float luma_gain;
    float red_of_v;
    float green_of_u;
    float green_of_v;
    float blue_of_u;
};

// An NV12 picture: addresses of the first samples, distances between rows in bytes.
struct Surface {
    Address luma;
    Address chroma;
    int luma_stride;
    int chroma_stride;
    int width;
    int height;
    ToRgb colour;
};

// A model's input: planes of `width` by `height` for each picture, `(byte - mean) * scale`.
struct Tensor {
    Address values;
    int width;
    int height;
    // 0: red comes first. 2: blue does.
    int first_component;
    float scale;
    float mean[3];
    int unused;
};

// One source sample of a destination sample, and its share in 1/256.
struct Tap {
    unsigned short index;
    unsigned short weight;
};

// `count` taps for each destination sample of one axis.
struct Taps {
    Address first;
    int count;
    // Whether columns are added up without weights, as the host does for means.
    int is_mean;
    // What brings a sum to a byte's units.
    float unit;
    int unused;
};

// A frame, where it goes, the region of it that is looked at, and the part of the canvas that it fills.
struct Letterbox {
    Surface surface;
    // This frame's own planes: frames of one batch may have canvases of several sizes.
    Tensor canvas;
    int x;
    int y;
    int width;
    int height;
    int content_width;
    int content_height;
    // Of luma, and of chroma.
    Taps columns[2];
    Taps rows[2];
};

// A face: `a·z + b` takes a pixel of the crop to the frame.
struct Face {
    Surface surface;
    float a[2];
    float b[2];
    // Samples of a pixel along each axis.
    int per_axis;
    // What brings the sum of all samples to a byte's units.
    float unit;
    // Whether the crop is seen in a mirror.
    int is_mirrored;
    int unused;
};

static_assert(sizeof(Surface) == 56 && sizeof(Tensor) == 40 && sizeof(Tap) == 4, "the host lays them out so");
static_assert(sizeof(Taps) == 24 && sizeof(Letterbox) == 216 && sizeof(Face) == 88, "the host lays them out so");

__device__ __forceinline__ float clamped(float value, float low, float high) {
    return value < low ? low : (value > high ? high : value);
}

// What is no number becomes 0, as it does on the host.
__device__ __forceinline__ int whole(float value) {
    return value == value ? static_cast<int>(value) : 0;
}

// The level nearest to a value from 0 to 255, halves to the even one: floats lie one apart from 2^23 on.
__device__ __forceinline__ float level(float value) {
    return static_cast<float>(whole(value + 8388608.0f) & 255);
}

// What chroma adds to red, green and blue.
__device__ __forceinline__ void shift_of(const ToRgb &colour, float u, float v, float shift[3]) {
    u = u - 128.0f;
    v = v - 128.0f;
    shift[0] = colour.red_of_v * v;
    shift[1] = colour.green_of_u * u + colour.green_of_v * v;
    shift[2] = colour.blue_of_u * u;
}

__device__ __forceinline__ float stretched(const ToRgb &colour, float luma) {
    return (luma - colour.luma_zero) * colour.luma_gain;
}

// Writes one pixel into the three planes of picture `picture`.
__device__ __forceinline__ void store(const Tensor &tensor, int picture, int column, int row, const float rgb[3]) {
    const size_t area = static_cast<size_t>(tensor.width) * tensor.height;
    float *values = DEVICE_POINTER(float, tensor.values) + picture * 3 * area + static_cast<size_t>(row) * tensor.width + column;
    for (int plane = 0; plane < 3; plane++) {
        const int component = tensor.first_component == 0 ? plane : 2 - plane;
        values[plane * area] = (rgb[component] - tensor.mean[plane]) * tensor.scale;
    }
}

// One sample of a canvas: rows are added up by their weights, then columns.
__device__ __forceinline__ float gathered(const unsigned char *plane, int stride, int step, const Tap *columns, const Taps &across,
                                          const Tap *rows, const Taps &down) {
    unsigned int sum = 0;
    for (int column = 0; column < across.count; column++) {
        const unsigned char *top = plane + static_cast<size_t>(columns[column].index) * step;
        unsigned int line = 0;
        for (int row = 0; row < down.count; row++) {
            line += top[static_cast<size_t>(rows[row].index) * stride] * static_cast<unsigned int>(rows[row].weight);
        }
        sum += across.is_mean ? line : line * columns[column].weight;
    }
    return static_cast<float>(sum) * across.unit;
}

__device__ __forceinline__ const Tap *taps_of(const Taps &taps, int sample) {
    return DEVICE_POINTER(const Tap, taps.first) + static_cast<size_t>(sample) * taps.count;
}

// A thread fills two by two pixels of a canvas, which share their chroma. One frame lies behind the
// other along z; the grid is as large as the largest canvas.
extern "C" __global__ void letterbox_nv12(Address frames) {
    const int column = 2 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    const int row = 2 * static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
    const Letterbox &frame = DEVICE_POINTER(const Letterbox, frames)[blockIdx.z];
    if (column >= frame.canvas.width || row >= frame.canvas.height) {
        return;
    }
    const Surface &surface = frame.surface;
    const unsigned char *luma = DEVICE_POINTER(const unsigned char, surface.luma) + static_cast<size_t>(frame.y) * surface.luma_stride + frame.x;
    float shift[3] = {0.0f, 0.0f, 0.0f};
    if (column < frame.content_width && row < frame.content_height) {
        const unsigned char *chroma = DEVICE_POINTER(const unsigned char, surface.chroma) +
                                      static_cast<size_t>(frame.y / 2) * surface.chroma_stride + static_cast<size_t>(frame.x / 2) * 2;
        const Tap *columns = taps_of(frame.columns[1], column / 2);
        const Tap *rows = taps_of(frame.rows[1], row / 2);
        const float u = gathered(chroma, surface.chroma_stride, 2, columns, frame.columns[1], rows, frame.rows[1]);
        const float v = gathered(chroma + 1, surface.chroma_stride, 2, columns, frame.columns[1], rows, frame.rows[1]);
        shift_of(surface.colour, u, v, shift);
    }
    for (int pixel = 0; pixel < 4; pixel++) {
        const int x = column + pixel % 2;
        const int y = row + pixel / 2;
        float rgb[3] = {0.0f, 0.0f, 0.0f};
        if (x < frame.content_width && y < frame.content_height) {
            const float bright = gathered(luma, surface.luma_stride, 1, taps_of(frame.columns[0], x), frame.columns[0],
                                          taps_of(frame.rows[0], y), frame.rows[0]);
            const float stretch = stretched(surface.colour, bright);
            for (int component = 0; component < 3; component++) {
                // Whole levels, as detectors are trained with.
                rgb[component] = level(clamped(stretch + shift[component], 0.0f, 255.0f));
            }
        }
        store(frame.canvas, 0, x, y, rgb);
    }
}

// The weight of a whole pixel, and the side of a crop.
static const int ONE = 128;
static const int SIDE = 112;
// How much of a pixel of the crop its samples are spread over.
static const float SPREAD = 0.5f;

// The four neighbours of a point of a plane: the upper left one, and the weights of the right and of
// the lower ones. Edge pixels stand for what lies beyond.
struct Neighbours {
    int left;
    int upper;
    int right_weight;
    int lower_weight;
};

__device__ __forceinline__ Neighbours neighbours(float x, float y, int last_x, int last_y) {
    const int fixed_x = whole(clamped(x, 0.0f, static_cast<float>(last_x)) * static_cast<float>(ONE));
    const int fixed_y = whole(clamped(y, 0.0f, static_cast<float>(last_y)) * static_cast<float>(ONE));
    const int left_max = last_x > 0 ? last_x - 1 : 0;
    const int upper_max = last_y > 0 ? last_y - 1 : 0;
    Neighbours at;
    at.left = fixed_x / ONE < left_max ? fixed_x / ONE : left_max;
    at.upper = fixed_y / ONE < upper_max ? fixed_y / ONE : upper_max;
    at.right_weight = fixed_x - at.left * ONE;
    at.lower_weight = fixed_y - at.upper * ONE;
    return at;
}

// The value between the neighbours, times ONE squared.
__device__ __forceinline__ int blended(const unsigned char *plane, int stride, int step, const Neighbours &at, int last_x, int last_y) {
    const unsigned char *upper = plane + static_cast<size_t>(at.upper) * stride + static_cast<size_t>(at.left) * step;
    const unsigned char *lower = upper + (last_y == 0 ? 0 : stride);
    const int to_right = last_x == 0 ? 0 : step;
    const int above = upper[0] * (ONE - at.right_weight) + upper[to_right] * at.right_weight;
    const int below = lower[0] * (ONE - at.right_weight) + lower[to_right] * at.right_weight;
    return above * (ONE - at.lower_weight) + below * at.lower_weight;
}

__device__ __forceinline__ bool is_within(float at, int last) {
    return at >= 0.0f && at <= static_cast<float>(last);
}

// How much of a bilinear sample lies in the picture along one axis, in 1/ONE.
__device__ __forceinline__ int share_inside(float at, int last) {
    const float before = -at;
    const float after = at - static_cast<float>(last);
    return whole(clamped(1.0f - (before > after ? before : after), 0.0f, 1.0f) * static_cast<float>(ONE));
}

// Where along an axis sample `sample` of a pixel lies, evenly around its centre.
__device__ __forceinline__ float spread(int sample, int per_axis) {
    return ((static_cast<float>(sample) + 0.5f) / static_cast<float>(per_axis) - 0.5f) * SPREAD;
}

// Adds one sample of a pixel to the sums of luma, U and V.
__device__ __forceinline__ void add_sample(const Face &face, int column, float x, float y, int sums[3]) {
    const Surface &surface = face.surface;
    const int last_x = surface.width - 1;
    const int last_y = surface.height - 1;
    const float start_x = face.a[0] * x - face.a[1] * y + face.b[0];
    const float start_y = face.a[1] * x + face.a[0] * y + face.b[1];
    const float at_x = start_x + face.a[0] * static_cast<float>(column);
    const float at_y = start_y + face.a[1] * static_cast<float>(column);
    const float end_x = start_x + face.a[0] * static_cast<float>(SIDE - 1);
    const float end_y = start_y + face.a[1] * static_cast<float>(SIDE - 1);
    const unsigned char *luma = DEVICE_POINTER(const unsigned char, surface.luma);
    const unsigned char *chroma = DEVICE_POINTER(const unsigned char, surface.chroma);
    // Chroma lies level with the left luma column and between the two luma rows.
    const int chroma_last_x = (surface.width + 1) / 2 - 1;
    const int chroma_last_y = (surface.height + 1) / 2 - 1;
    const Neighbours in_chroma = neighbours(at_x * 0.5f, (at_y - 0.5f) * 0.5f, chroma_last_x, chroma_last_y);
    int values[3];
    values[0] = blended(luma, surface.luma_stride, 1, neighbours(at_x, at_y, last_x, last_y), last_x, last_y);
    values[1] = blended(chroma, surface.chroma_stride, 2, in_chroma, chroma_last_x, chroma_last_y);
    values[2] = blended(chroma + 1, surface.chroma_stride, 2, in_chroma, chroma_last_x, chroma_last_y);
    // The host decides by whole rows of the crop.
    const bool is_row_inside = is_within(start_x + face.a[0] * 0.0f, last_x) && is_within(start_y + face.a[1] * 0.0f, last_y) &&
                               is_within(end_x, last_x) && is_within(end_y, last_y);
    if (!is_row_inside) {
        const int inside = share_inside(at_x, last_x) * share_inside(at_y, last_y);
        const int black[3] = {static_cast<int>(surface.colour.luma_zero), 128, 128};
        for (int component = 0; component < 3; component++) {
            values[component] = values[component] / ONE * inside / ONE + black[component] * (ONE * ONE - inside);
        }
    }
    for (int component = 0; component < 3; component++) {
        sums[component] += values[component];
    }
}

// A thread makes one pixel of a crop. One face lies behind the other along z.
extern "C" __global__ void align_nv12(Address faces, Tensor tensor) {
    const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    const int row = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
    if (column >= SIDE || row >= SIDE) {
        return;
    }
    const int picture = static_cast<int>(blockIdx.z);
    const Face &face = DEVICE_POINTER(const Face, faces)[picture];
    int sums[3] = {0, 0, 0};
    for (int down = 0; down < face.per_axis; down++) {
        for (int across = 0; across < face.per_axis; across++) {
            add_sample(face, column, spread(across, face.per_axis), static_cast<float>(row) + spread(down, face.per_axis), sums);
        }
    }
    float shift[3];
    const ToRgb &colour = face.surface.colour;
    shift_of(colour, static_cast<float>(sums[1]) * face.unit, static_cast<float>(sums[2]) * face.unit, shift);
    const float stretch = stretched(colour, static_cast<float>(sums[0]) * face.unit);
    float rgb[3];
    for (int component = 0; component < 3; component++) {
        // The encoder sees bytes, rounded as the host rounds them.
        rgb[component] = level(clamped(stretch + shift[component], 0.0f, 255.0f));
    }
    store(tensor, picture, face.is_mirrored ? SIDE - 1 - column : column, row, rgb);
}

// The part of a crop that is measured begins so far from its edge.
static const int MEASURED_MARGIN = 16;
static const int MEASURED_SIDE = SIDE - 2 * MEASURED_MARGIN;
// Sums of a row: of luma, of its square, of the Laplacian, of its square.
static const int SUMS = 4;

__device__ __forceinline__ float luma_of(const float *crop, int at) {
    return 0.299f * crop[at] + 0.587f * crop[SIDE * SIDE + at] + 0.114f * crop[2 * SIDE * SIDE + at];
}

// A thread adds up one row of the measured part of a crop, whose planes are bytes in red, green and
// blue; the host adds up the rows, so that the order of the sums is always the same.
extern "C" __global__ void measure_crops(Address sums, Tensor crops) {
    const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (row >= MEASURED_SIDE || blockIdx.y * blockDim.y + threadIdx.y != 0) {
        return;
    }
    const int picture = static_cast<int>(blockIdx.z);
    const float *crop = DEVICE_POINTER(const float, crops.values) + static_cast<size_t>(picture) * 3 * SIDE * SIDE;
    double row_sums[SUMS] = {0.0, 0.0, 0.0, 0.0};
    for (int column = 0; column < MEASURED_SIDE; column++) {
        const int at = (MEASURED_MARGIN + row) * SIDE + MEASURED_MARGIN + column;
        const float luma = luma_of(crop, at);
        const float laplacian = luma_of(crop, at - 1) + luma_of(crop, at + 1) + luma_of(crop, at - SIDE) + luma_of(crop, at + SIDE) - 4.0f * luma;
        row_sums[0] += static_cast<double>(luma);
        row_sums[1] += static_cast<double>(luma) * static_cast<double>(luma);
        row_sums[2] += static_cast<double>(laplacian);
        row_sums[3] += static_cast<double>(laplacian) * static_cast<double>(laplacian);
    }
    double *out = DEVICE_POINTER(double, sums) + static_cast<size_t>(picture * MEASURED_SIDE + row) * SUMS;
    for (int sum = 0; sum < SUMS; sum++) {
        out[sum] = row_sums[sum];
    }
}
