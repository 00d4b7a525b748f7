/* Convolution of one example, written by hand: a generic loop nest checks its borders in the innermost loop. */
#ifndef EM_CONV_H
#define EM_CONV_H

typedef struct {
    int in_channels, in_height, in_width; /* of one group */
    int out_channels, out_height, out_width; /* out_channels of all groups */
    int kernel_height, kernel_width;
    int stride_height, stride_width;
    int dilation_height, dilation_width;
    int pad_top, pad_left; /* as many zeros at the bottom and on the right */
    int groups;
} em_conv_shape;

/* x (groups * in_channels, in_height, in_width), weight (out_channels, in_channels, kernel_height, kernel_width),
   bias (out_channels) -> y (out_channels, out_height, out_width), which must not overlap x. `scratch` is memory for the
   windows of two pixels, 2 * in_channels * kernel_height * kernel_width floats, or, where each group is of one channel in
   and out, for one padded plane, (in_height + 2 * pad_top) * (in_width + 2 * pad_left) floats. */
void em_conv(const float *x, const float *weight, const float *bias, float *y, float *scratch, const em_conv_shape *shape);

#endif
