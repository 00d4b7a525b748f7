/* Learning new classes on a device without an operating system: features of images, examples, adaptation, answers.
 *
 *     static em_state state;                        what was learned; plain memory, to be kept in flash as it is
 *     em_init(&state);
 *     em_prepare(pixels, em_image());               for each example ...
 *     em_embed(em_image(), features);
 *     em_enroll(&state, features, label);
 *     em_adapt(&state);                             ... once when all are there
 *     em_prepare(pixels, em_image());
 *     em_embed(em_image(), features);
 *     em_classify(&state, features, logits);        probabilities are the softmax of the logits
 *
 * All memory is static: one arena that every call overwrites, and the caller's states. No allocation, no file, nothing
 * of the C library but memcpy, memmove, memset and math.h. One thread at a time. em_model.h has the sizes.
 */
#ifndef EDGEMETA_C_H
#define EDGEMETA_C_H

#include <stdint.h>

#include "em_model.h"

#define EM_IMAGE (EM_CHANNELS * EM_HEIGHT * EM_WIDTH)

typedef enum {
    EM_OK = 0,
    EM_FULL,    /* EM_ROWS examples are there already: forget a class, or build with more rows */
    EM_LABEL,   /* no label from 0 to EM_WAY - 1 */
    EM_EMPTY,   /* no example to adapt to */
    EM_STALE,   /* examples came or went since em_adapt: call it first */
    EM_FOREIGN  /* no state of this program: of another build, or em_init was not called */
} em_status;

typedef struct {
    uint32_t id;      /* EM_ID */
    uint16_t rows;    /* examples, the first so many below */
    uint8_t adapted;  /* whether `fast` follows from them */
    uint8_t labels[EM_ROWS];
    float features[EM_ROWS][EM_DIM];
    uint64_t fast[EM_FAST_BYTES / 8]; /* what the learner makes of the examples */
} em_state;

void em_init(em_state *state);

/* Bytes (channels, height, width) -> the image that the network wants, as its training had it. */
void em_prepare(const uint8_t pixels[EM_IMAGE], float image[EM_IMAGE]);

/* Memory for an image inside the arena, until the next call: an image of one's own takes as much again. */
float *em_image(void);

/* Image (channels, height, width) -> features. */
void em_embed(const float image[EM_IMAGE], float features[EM_DIM]);

em_status em_enroll(em_state *state, const float features[EM_DIM], int label);
em_status em_forget(em_state *state, int label);
em_status em_adapt(em_state *state);

/* A class without examples has a logit of -INFINITY. */
em_status em_classify(const em_state *state, const float features[EM_DIM], float logits[EM_WAY]);

#endif
