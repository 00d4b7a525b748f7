#include "em_conv.h"

#include <string.h>

/* The window of one output pixel as a row of in_channels * kernel_height * kernel_width numbers, zeros outside. */
static void gather(const float *x, float *row, int oy, int ox, const em_conv_shape *s) {
    int top = oy * s->stride_height - s->pad_top, left = ox * s->stride_width - s->pad_left;
    int plane = s->in_height * s->in_width, wide = s->dilation_width;
    if (s->kernel_height * s->kernel_width == 1) {
        const float *from = x + top * s->in_width + left;
        for (int channel = 0; channel < s->in_channels; channel++, from += plane) *row++ = *from;
        return;
    }
    for (int channel = 0; channel < s->in_channels; channel++, x += plane) {
        for (int ky = 0; ky < s->kernel_height; ky++) {
            int iy = top + ky * s->dilation_height, begin = iy * s->in_width;
            unsigned width = (unsigned)iy < (unsigned)s->in_height ? (unsigned)s->in_width : 0u;
            for (int ix = left; ix < left + wide * s->kernel_width; ix += wide) {
                *row++ = (unsigned)ix < width ? x[begin + ix] : 0.0f;
            }
        }
    }
}

/* Two pixels at a time against four channels of weights: each number that is loaded is used twice or four times. */
static void multiply(const float *rows, const float *weight, const float *bias, float *y, int size, int channels,
                     int step, int pair) {
    const float *second = rows + size, *end = second;
    for (; channels >= 4; channels -= 4, weight += 4 * size, bias += 4, y += 4 * step) {
        float a0 = bias[0], a1 = bias[1], a2 = bias[2], a3 = bias[3], b0 = a0, b1 = a1, b2 = a2, b3 = a3;
        const float *w0 = weight, *w1 = w0 + size, *w2 = w1 + size, *w3 = w2 + size;
        for (const float *p = rows, *q = second; p < end;) {
            float u = *p++, v = *q++, w;
            w = *w0++, a0 += u * w, b0 += v * w;
            w = *w1++, a1 += u * w, b1 += v * w;
            w = *w2++, a2 += u * w, b2 += v * w;
            w = *w3++, a3 += u * w, b3 += v * w;
        }
        y[0] = a0, y[step] = a1, y[2 * step] = a2, y[3 * step] = a3;
        if (pair) y[1] = b0, y[step + 1] = b1, y[2 * step + 1] = b2, y[3 * step + 1] = b3;
    }
    for (; channels > 0; channels--, bias++, y += step) {
        float a = *bias, b = *bias;
        for (int i = 0; i < size; i++) {
            float w = *weight++;
            a += rows[i] * w, b += second[i] * w;
        }
        y[0] = a;
        if (pair) y[1] = b;
    }
}

/* A plane with zeros around it, so that every window lies inside. */
static void pad(const float *x, float *padded, const em_conv_shape *s) {
    int left = s->pad_left, width = s->in_width + 2 * left, edge = s->pad_top * width;
    memset(padded, 0, (size_t)edge * sizeof *padded);
    padded += edge;
    for (int y = 0; y < s->in_height; y++) {
        for (int i = 0; i < left; i++) *padded++ = 0.0f;
        for (int i = 0; i < s->in_width; i++) *padded++ = *x++;
        for (int i = 0; i < left; i++) *padded++ = 0.0f;
    }
    memset(padded, 0, (size_t)edge * sizeof *padded);
}

/* One row of a kernel, times what lies under it, onto a row of sums. The common widths keep their weights in registers. */
static void add_1(const float *x, const float *w, float *y, int count, int stride) {
    float w0 = w[0];
    for (; count > 0; count--, x += stride) *y++ += x[0] * w0;
}
static void add_3(const float *x, const float *w, float *y, int count, int stride) {
    float w0 = w[0], w1 = w[1], w2 = w[2];
    for (; count > 0; count--, x += stride) *y++ += x[0] * w0 + x[1] * w1 + x[2] * w2;
}
static void add_5(const float *x, const float *w, float *y, int count, int stride) {
    float w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3], w4 = w[4];
    for (; count > 0; count--, x += stride) *y++ += x[0] * w0 + x[1] * w1 + x[2] * w2 + x[3] * w3 + x[4] * w4;
}

static void depthwise(const float *padded, const float *weight, float bias, float *y, const em_conv_shape *s) {
    int width = s->in_width + 2 * s->pad_left, dense = s->dilation_width == 1, wide = s->kernel_width;
    int taps = dense && (wide == 3 || wide == 5) ? wide : 1;
    void (*add)(const float *, const float *, float *, int, int) = taps == 3 ? add_3 : taps == 5 ? add_5 : add_1;
    for (int oy = 0; oy < s->out_height; oy++, y += s->out_width) {
        for (int ox = 0; ox < s->out_width; ox++) y[ox] = bias;
        for (int ky = 0; ky < s->kernel_height; ky++) {
            const float *x = padded + (oy * s->stride_height + ky * s->dilation_height) * width;
            for (int kx = 0; kx < wide; kx += taps) {
                add(x + kx * s->dilation_width, weight + ky * wide + kx, y, s->out_width, s->stride_width);
            }
        }
    }
}

void em_conv(const float *x, const float *weight, const float *bias, float *y, float *scratch, const em_conv_shape *s) {
    int channels = s->out_channels / s->groups, pixels = s->out_height * s->out_width;
    int size = s->in_channels * s->kernel_height * s->kernel_width, plane = s->in_height * s->in_width;
    for (int group = 0; group < s->groups; group++) {
        if (s->in_channels == 1 && channels == 1) {
            pad(x, scratch, s);
            depthwise(scratch, weight, *bias, y, s);
        } else {
            for (int at = 0; at < pixels; at += 2) {
                int pair = at + 1 < pixels;
                gather(x, scratch, at / s->out_width, at % s->out_width, s);
                gather(x, scratch + size, (at + pair) / s->out_width, (at + pair) % s->out_width, s);
                multiply(scratch, weight, bias, y + at, size, channels, pixels, pair);
            }
        }
        x += s->in_channels * plane, weight += channels * size, bias += channels, y += channels * pixels;
    }
}
