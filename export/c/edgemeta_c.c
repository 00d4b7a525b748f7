#include "edgemeta_c.h"

#include <math.h>
#include <string.h>

#define EM_ALIGNED(bytes) (((bytes) + 7) / 8 * 8)
#define EM_ONEHOT_BYTES EM_ALIGNED(4 * EM_ROWS * EM_WAY)

static uint64_t em_arena[EM_ARENA_BYTES / 8];

void em_init(em_state *state) {
    memset(state, 0, sizeof *state);
    state->id = EM_ID;
}

#if EM_INK_HIGH
/* Whether the median of the outermost pixels, corners counted twice, is above one half. */
static int is_light(const float *image) {
    int light = 0, all = 0;
    for (int channel = 0; channel < EM_CHANNELS; channel++, image += EM_HEIGHT * EM_WIDTH) {
        for (int x = 0; x < EM_WIDTH; x++) {
            light += (image[x] > 0.5f) + (image[(EM_HEIGHT - 1) * EM_WIDTH + x] > 0.5f);
        }
        for (int y = 0; y < EM_HEIGHT; y++) {
            light += (image[y * EM_WIDTH] > 0.5f) + (image[y * EM_WIDTH + EM_WIDTH - 1] > 0.5f);
        }
        all += 2 * (EM_WIDTH + EM_HEIGHT);
    }
    return 2 * light > all;
}
#endif

void em_prepare(const uint8_t pixels[EM_IMAGE], float image[EM_IMAGE]) {
    for (int i = 0; i < EM_IMAGE; i++) {
        image[i] = (float)pixels[i] * EM_SCALE;
    }
#if EM_INK_HIGH
    if (is_light(image)) {
        for (int i = 0; i < EM_IMAGE; i++) {
            image[i] = 1.0f - image[i];
        }
    }
#endif
}

float *em_image(void) {
    return (float *)((char *)em_arena + EM_IMAGE_OFFSET);
}

void em_embed(const float image[EM_IMAGE], float features[EM_DIM]) {
    float *own = em_image();
    if (image != own) memmove(own, image, EM_IMAGE * sizeof *own);
    em_graph_body(em_arena, features);
}

em_status em_enroll(em_state *state, const float features[EM_DIM], int label) {
    if (state->id != EM_ID) return EM_FOREIGN;
    if (label < 0 || label >= EM_WAY) return EM_LABEL;
    if (state->rows >= EM_ROWS) return EM_FULL;
    memcpy(state->features[state->rows], features, sizeof state->features[0]);
    state->labels[state->rows++] = (uint8_t)label;
    state->adapted = 0;
    return EM_OK;
}

em_status em_forget(em_state *state, int label) {
    int kept = 0;
    if (state->id != EM_ID) return EM_FOREIGN;
    if (label < 0 || label >= EM_WAY) return EM_LABEL;
    for (int row = 0; row < state->rows; row++) {
        if (state->labels[row] == label) continue;
        state->labels[kept] = state->labels[row];
        memmove(state->features[kept++], state->features[row], sizeof state->features[0]);
    }
    memset(state->features + kept, 0, (size_t)(EM_ROWS - kept) * sizeof state->features[0]);
    state->rows = (uint16_t)kept;
    state->adapted = 0;
    return EM_OK;
}

/* The arena: one-hot labels, zeros for padding; what is kept from step to step; scratch. */
em_status em_adapt(em_state *state) {
    float *onehot = (float *)em_arena;
    void *kept = (char *)em_arena + EM_ONEHOT_BYTES, *scratch = (char *)kept + EM_KEPT_BYTES;
    if (state->id != EM_ID) return EM_FOREIGN;
    if (state->rows == 0) return EM_EMPTY;
    memset(onehot, 0, EM_ONEHOT_BYTES);
    for (int row = 0; row < state->rows; row++) {
        onehot[row * EM_WAY + state->labels[row]] = 1.0f;
    }
    em_graph_start(scratch, state->features[0], onehot, kept, state->fast);
#if EM_STEPS
    for (int step = 0; step < EM_STEPS; step++) {
        em_graph_step(scratch, state->features[0], onehot, kept, state->fast);
    }
#endif
    state->adapted = 1;
    return EM_OK;
}

em_status em_classify(const em_state *state, const float features[EM_DIM], float logits[EM_WAY]) {
    uint8_t there[EM_WAY] = {0};
    if (state->id != EM_ID) return EM_FOREIGN;
    if (!state->adapted) return state->rows ? EM_STALE : EM_EMPTY;
    em_graph_classify(em_arena, features, state->fast, logits);
    for (int row = 0; row < state->rows; row++) {
        there[state->labels[row]] = 1;
    }
    for (int label = 0; label < EM_WAY; label++) {
        if (!there[label]) logits[label] = -INFINITY;
    }
    return EM_OK;
}
