// A model of tools/export_onnx.py in the browser: its metadata says how pictures are prepared.
//
// Beside this file lie, see README.md: model.onnx, model.json (its metadata), and two files of onnxruntime-web.

import * as ort from "./ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1; // more need a server that sends the headers of cross-origin isolation

export class Classifier {
  static async load(model, metadata) {
    const info = await (await fetch(metadata)).json();
    if (info.task !== "classification") throw new Error(`expected a model for classification, found one for ${info.task}`);
    return new Classifier(await ort.InferenceSession.create(model, { executionProviders: ["wasm"] }), info);
  }

  constructor(session, info) {
    this.session = session;
    this.info = info;
  }

  // The likeliest classes of an <img>, <canvas> or ImageBitmap, likeliest first.
  async classify(picture, topk = 5) {
    const { data, width, height } = this.pixels(picture);
    return this.run(this.normalized(data, width, height), width, height, topk);
  }

  // RGBA of the picture after the steps of the metadata: resized, and cut out of the middle.
  pixels(picture) {
    let [width, height] = [picture.naturalWidth ?? picture.width, picture.naturalHeight ?? picture.height];
    let source = picture;
    for (const step of this.info.preprocess.steps) {
      let [w, h, left, top] = [width, height, 0, 0];
      if (step.size) [h, w] = step.size;
      if (step.short_side) [w, h] = [width, height].map((side) => Math.floor((step.short_side * side) / Math.min(width, height)));
      if (step.crop) {
        [h, w] = [Math.min(step.crop[0], height), Math.min(step.crop[1], width)];
        [left, top] = [Math.round((width - w) / 2), Math.round((height - h) / 2)];
      }
      const canvas = new OffscreenCanvas(w, h);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.imageSmoothingQuality = "high";
      if (step.crop) context.drawImage(source, -left, -top);
      else context.drawImage(source, 0, 0, w, h);
      [source, width, height] = [canvas, w, h];
    }
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    context.drawImage(source, 0, 0);
    return { data: context.getImageData(0, 0, width, height).data, width, height };
  }

  // (1, channels, height, width), normalized as in training.
  normalized(rgba, width, height) {
    const { mean, std, rgb } = this.info.preprocess;
    const channels = mean.length;
    const values = new Float32Array(channels * width * height);
    for (let place = 0; place < width * height; place++) {
      const [r, g, b] = [rgba[4 * place], rgba[4 * place + 1], rgba[4 * place + 2]];
      const colours = channels === 1 ? [0.299 * r + 0.587 * g + 0.114 * b] : rgb ? [r, g, b] : [b, g, r];
      colours.forEach((value, c) => { values[c * width * height + place] = (value - mean[c]) / std[c]; });
    }
    return values;
  }

  async run(values, width, height, topk) {
    const shape = [1, values.length / (width * height), height, width];
    const results = await this.session.run({ [this.session.inputNames[0]]: new ort.Tensor("float32", values, shape) });
    const logits = Array.from(results[this.session.outputNames[0]].data);
    const most = Math.max(...logits);
    const weights = logits.map((logit) => Math.exp(logit - most));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return weights
      .map((weight, number) => ({ label: this.info.labels?.[number] ?? String(number), score: weight / total }))
      .sort((one, other) => other.score - one.score)
      .slice(0, topk);
  }
}
