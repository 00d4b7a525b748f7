/* Hold this program's answers against those of ONNX Runtime in em_golden.h, and count what each call takes. */
#include "edgemeta_c.h"
#include "em_port.h"

#include <math.h>

#include "em_golden.h"

#define TOLERANCE 1e-4f /* of the largest value: of 1 where that is larger, features of their own */

static em_state state;
static float features[EM_DIM], logits[EM_WAY];

static void say_value(const char *name, uint32_t value) {
    char digits[11];
    int at = 10;
    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + value % 10u);
        value /= 10u;
    } while (value);
    em_say(name);
    em_say(" ");
    em_say(digits + at);
    em_say("\n");
}

static float noise(uint32_t stream, uint32_t place) {
    uint32_t h = place * 0x9E3779B1u + stream * 0x85EBCA77u + EM_GOLDEN_SEED;
    h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
    h = (h ^ (h >> 13)) * 0xC2B2AE35u;
    h = h ^ (h >> 16);
    return (float)(h >> 8) * (1.0f / 16777216.0f);
}

/* Cells of random shades, which make the class, and noise over them. */
static void draw(uint32_t number) {
    float *image = em_image();
    for (uint32_t i = 0; i < EM_IMAGE; i++) {
        uint32_t y = i / EM_WIDTH % EM_HEIGHT, x = i % EM_WIDTH;
        uint32_t cell = y * EM_GOLDEN_CELLS / EM_HEIGHT * EM_GOLDEN_CELLS + x * EM_GOLDEN_CELLS / EM_WIDTH;
        float shade = noise(number % EM_WAY, cell), over = noise(1000u + number, i);
        image[i] = shade * (1.0f - EM_GOLDEN_NOISE) + over * EM_GOLDEN_NOISE;
    }
}

/* The largest difference as a share of the largest value, or of `least` where that is larger; 1 where either is no number
   and the other not the same. */
static float difference(const float *got, const float *want, int count, float least) {
    float worst = 0.0f, largest = least;
    for (int i = 0; i < count; i++) {
        float gap = got[i] == want[i] ? 0.0f : fabsf(got[i] - want[i]);
        if (isfinite(want[i]) && fabsf(want[i]) > largest) largest = fabsf(want[i]);
        if (!(gap <= worst)) worst = isfinite(gap) ? gap : 1e30f;
    }
    return worst < largest ? worst / largest : 1.0f;
}

static float answers(const float want[EM_GOLDEN_QUERIES][EM_WAY], float *of_features, uint32_t counts[2]) {
    float worst = 0.0f;
    for (uint32_t query = 0; query < EM_GOLDEN_QUERIES; query++) {
        float gap;
        uint32_t begin, middle, end;
        draw(EM_GOLDEN_SHOWN + query);
        begin = em_clock();
        em_embed(em_image(), features);
        middle = em_clock();
        if (em_classify(&state, features, logits) != EM_OK) return 1.0f;
        end = em_clock();
        counts[0] = em_instructions(middle - begin);
        counts[1] = em_instructions(end - middle);
        gap = difference(features, em_golden_features[query], EM_DIM, 1e-6f);
        if (gap > *of_features) *of_features = gap;
        gap = difference(logits, want[query], EM_WAY, 1.0f);
        if (gap > worst) worst = gap;
    }
    return worst;
}

int main(void) {
    uint32_t counts[2] = {0, 0}, adapting;
    float of_features = 0.0f, of_logits, forgotten;
    em_init(&state);
    for (uint32_t i = 0; i < EM_GOLDEN_SHOWN; i++) {
        draw(i);
        em_embed(em_image(), features);
        if (em_enroll(&state, features, (int)(i % EM_WAY)) != EM_OK) return 1;
    }
    adapting = em_clock();
    if (em_adapt(&state) != EM_OK) return 1;
    adapting = em_instructions(em_clock() - adapting);
    of_logits = answers(em_golden_logits, &of_features, counts);
    if (em_forget(&state, 0) != EM_OK || em_adapt(&state) != EM_OK) return 1;
    forgotten = answers(em_golden_forgotten, &of_features, counts);
    say_value("features_1e9", (uint32_t)(of_features * 1e9f));
    say_value("logits_1e9", (uint32_t)(of_logits * 1e9f));
    say_value("forgotten_1e9", (uint32_t)(forgotten * 1e9f));
    say_value("body_instructions", counts[0]);
    say_value("adapt_instructions", adapting);
    say_value("classify_instructions", counts[1]);
    say_value("state_bytes", (uint32_t)sizeof state);
    say_value("arena_bytes", EM_ARENA_BYTES);
    say_value("stack_bytes", em_stack_bytes());
    if (of_features <= TOLERANCE && of_logits <= TOLERANCE && forgotten <= TOLERANCE) {
        em_say("passed\n");
        return 0;
    }
    em_say("failed\n");
    return 1;
}
