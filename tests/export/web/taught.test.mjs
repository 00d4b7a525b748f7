import assert from 'node:assert/strict';
import { test } from 'node:test';

const taught = await import(`${process.env.PAGE}/taught.mjs`);
const THUMB = 'data:image/png;base64,AAAA';
const example = (value) => ({ x: Float32Array.of(value, value + 1), thumb: THUMB });

/** Cups (2 examples), nothing, pens (1). */
function three() {
  const [one, cup] = taught.addClass(taught.NOTHING, 'cup');
  const [two, none] = taught.addClass(one, 'none');
  const [all, pen] = taught.addClass(two, ' pen \n red ');
  const add = (state, [{ id }, value]) => taught.addExamples(state, id, [example(value)]);
  const state = [[cup, 1], [pen, 2], [cup, 3]].reduce(add, all);
  return { state, cup, none, pen };
}

test('a class without examples is no way of the task', () => {
  const { state, none } = three();
  assert.deepEqual(taught.waysOf(state).map(({ name }) => name), ['cup', 'pen red']);
  const { ids, labels, way } = taught.taskOf(state);
  assert.deepEqual([labels, way, new Set(ids).size], [[0, 1, 0], 2, 3]);
  assert.deepEqual(taught.taskOf(taught.NOTHING), { ids: [], labels: [], way: 0 });
  assert.equal(taught.forget(state, none.id).classes.length, 2);
});

test('a state that was is never changed', () => {
  const { state, cup } = three();
  const before = JSON.stringify(state);
  taught.dropExample(taught.forget(taught.rename(state, cup.id, 'mug'), cup.id), state.examples[1].id);
  assert.equal(JSON.stringify(state), before);
});

test('to forget a class is to forget its examples', () => {
  const { state, cup, pen } = three();
  const left = taught.forget(state, cup.id);
  assert.deepEqual(left.examples.map(({ owner }) => owner), [pen.id]);
  assert.deepEqual(taught.dropExample(left, left.examples[0].id).examples, []);
});

test('names are given once', () => {
  const { state, cup, pen } = three();
  for (const name of ['', '  ', 'cup', ' cup ']) assert.throws(() => taught.addClass(state, name), taught.TaughtError);
  assert.throws(() => taught.rename(state, pen.id, 'cup'), /a class “cup” already/);
  assert.equal(taught.rename(state, cup.id, 'cup').classes[0].name, 'cup');
  assert.equal(taught.addClass(state, 'x'.repeat(99))[1].name.length, 40);
});

test('a file brings everything back', () => {
  const { state } = three();
  const back = taught.fromFile(taught.toFile({ ...state, threshold: 0.8 }, 'id'), 'id', 2);
  assert.deepEqual(back.classes.map(({ name }) => name), ['cup', 'none', 'pen red']);
  assert.deepEqual([...taught.examplesOf(back, back.classes[0].id)[1].x], [3, 4]);
  assert.deepEqual([back.threshold, back.examples.map(({ thumb }) => thumb)], [0.8, [THUMB, THUMB, THUMB]]);
});

test('a file that does not fit is refused', () => {
  const file = (change) => {
    const read = JSON.parse(taught.toFile(three().state, 'id'));
    change(read);
    return JSON.stringify(read);
  };
  const open = (text) => taught.fromFile(text, 'id', 2);
  const whole = taught.toFile(three().state, 'id');
  for (const text of ['', 'null', '[]', whole.slice(0, whole.length >> 1), file((read) => { read.format = 'x'; }),
    file((read) => { read.classes[0].examples[0].x = 'AAAA'; }), // no whole number
    file((read) => { read.classes[0].examples[0].x = 'AADAfwAAwH8='; }), // NaN
    file((read) => { read.classes[0].examples = 3; }), file((read) => { read.classes[0].name = 7; })]) {
    assert.throws(() => open(text), /damaged/);
  }
  assert.throws(() => open(file((read) => { read.bundle = 'other'; })), /another bundle/);
  assert.throws(() => open(file((read) => { read.version = 2; })), /newer page/);
  assert.throws(() => open(file((read) => { read.classes[2].name = 'cup'; })), /already/);
  assert.equal(open(file((read) => { read.threshold = 'high'; })).threshold, taught.NOTHING.threshold);
  const linked = file((read) => { read.classes[0].examples[0].thumb = 'https://elsewhere/'; });
  assert.equal(open(linked).examples[0].thumb, '');
});
