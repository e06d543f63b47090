'use strict';
// Shows the attention of the detection or the point that is chosen, in the layer that is chosen.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const colours = decode(data.colours);
  for (const table of [data.cross, data.encoder]) if (table) table.weights = decode(table.bytes);

  const chosenLayer = (name) => Number(document.querySelector(`input[name=${name}]:checked`).value);

  function paint(context, weights, width, height) {
    const pixels = context.createImageData(width, height);
    weights.forEach((weight, cell) => pixels.data.set(colours.subarray(4 * weight, 4 * weight + 4), 4 * cell));
    context.putImageData(pixels, 0, 0);
  }

  // the weights of one row of a table, over the image: linear between the centres of cells, cut off where the image ends
  function drawHeat(stage, table, layer, row) {
    const canvas = stage.querySelector('canvas');
    const scale = Math.min(1, 900 / Math.max(data.width, data.height));
    canvas.width = Math.max(1, Math.round(data.width * scale));
    canvas.height = Math.max(1, Math.round(data.height * scale));
    stage.classList.toggle('dimmed', Boolean(table));
    if (!table) return;
    const [rows, columns] = table.size;
    const start = (layer * table.most[layer].length + row) * rows * columns;
    const small = document.createElement('canvas');
    small.width = columns;
    small.height = rows;
    paint(small.getContext('2d'), table.weights.subarray(start, start + rows * columns), columns, rows);
    canvas.getContext('2d').drawImage(small, 0, 0, columns * table.cell[1] * scale, rows * table.cell[0] * scale);
  }

  function shape(svg, name, attributes) {
    const element = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    svg.append(element);
  }

  const rectangle = ([x0, y0, x1, y1]) => ({ x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) });

  // where in the original image the mouse or finger is
  function place(stage, event) {
    const frame = stage.querySelector('img').getBoundingClientRect();
    return [(event.clientX - frame.left) / frame.width * data.width, (event.clientY - frame.top) / frame.height * data.height];
  }

  const stage = document.getElementById('detections-stage');
  const buttons = Array.from(document.querySelectorAll('[data-detection]'));
  let active = 0;

  function showDetections() {
    const layer = chosenLayer('decoder-layer');
    const entries = data.detections.map((detection) => ({ ...detection, ...detection.layers[layer] }));
    const chosen = entries[active];
    drawHeat(stage, chosen && data.cross, layer, active);
    const svg = stage.querySelector('svg');
    svg.replaceChildren();
    if (chosen?.region) {
      const { x, y, width, height } = rectangle(chosen.region);
      shape(svg, 'path', { class: 'shade', d: `M0 0H${data.width}V${data.height}H0zM${x} ${y}h${width}v${height}h${-width}z` });
      shape(svg, 'rect', { class: 'region', stroke: chosen.colour, ...rectangle(chosen.region) });
    }
    for (const entry of chosen ? [chosen] : entries) {
      if (entry.mask) shape(svg, 'path', { class: 'mask', stroke: entry.colour, fill: entry.colour, d: entry.mask });
    }
    entries.forEach((entry, number) => {
      if (entry !== chosen) shape(svg, 'rect', { class: chosen ? 'other' : '', stroke: entry.colour, ...rectangle(entry.box) });
    });
    if (chosen) shape(svg, 'rect', { class: 'chosen', stroke: chosen.colour, ...rectangle(chosen.box) });
    buttons.forEach((button) => button.setAttribute('aria-pressed', String(Number(button.dataset.detection) === active)));
    const where = `layer ${layer + 1} of ${data.queries.length}`;
    document.getElementById('detections-says').textContent = !chosen
      ? `All detections after ${where}.`
      : `${active + 1} ${chosen.name}, score ${chosen.score.toFixed(2)} after ${where}.` +
        (data.cross ? ` The cell with the most attention has ${percent(data.cross.most[layer][active])} of it.` : '');
  }

  function choose(number) {
    if (number === active) return;
    active = number;
    showDetections();
  }

  // of the boxes around a place the smallest is meant; between boxes nothing changes
  function detectionAt([x, y]) {
    const layer = chosenLayer('decoder-layer');
    let [best, area] = [-1, Infinity];
    data.detections.forEach((detection, number) => {
      const [x0, y0, x1, y1] = detection.layers[layer].box;
      const own = (x1 - x0) * (y1 - y0);
      if (x >= x0 && x <= x1 && y >= y0 && y <= y1 && own < area) [best, area] = [number, own];
    });
    return best;
  }

  for (const kind of ['pointermove', 'pointerdown']) {
    stage.addEventListener(kind, (event) => {
      const number = detectionAt(place(stage, event));
      if (number >= 0) choose(number);
    });
  }
  for (const button of buttons) {
    for (const kind of ['pointerenter', 'focus', 'click']) button.addEventListener(kind, () => choose(Number(button.dataset.detection)));
  }

  function showQueries() {
    const weights = data.queries[chosenLayer('queries-layer')];
    const most = Math.max(...weights.flatMap((row) => row.slice(0, -1)), 1e-9);
    document.querySelectorAll('#queries tbody tr').forEach((row, from) => {
      row.querySelectorAll('td').forEach((cell, to) => {
        cell.textContent = (100 * weights[from][to]).toFixed(1);
        cell.style.setProperty('--weight', to < weights.length ? weights[from][to] / most : 0);
      });
    });
  }

  function listen(name, show) {
    for (const input of document.querySelectorAll(`input[name=${name}]`)) input.addEventListener('change', show);
    show();
  }

  listen('decoder-layer', showDetections);
  listen('queries-layer', showQueries);

  if (data.encoder) {
    const { step, sources, first, cell } = data.encoder;
    const encoderStage = document.getElementById('encoder-stage');
    const sliders = ['point-y', 'point-x'].map((id) => document.getElementById(id));
    const source = (at, axis) => Math.max(0, Math.min(sources[axis] - 1, Math.round((Math.floor(at / cell[axis]) - first[axis]) / step)));

    function showPoint() {
      const layer = chosenLayer('encoder-layer');
      const at = sliders.map((slider) => Number(slider.value));
      const corner = at.map((value, axis) => (first[axis] + step * value) * cell[axis]);
      const row = at[0] * sources[1] + at[1];
      drawHeat(encoderStage, data.encoder, layer, row);
      const svg = encoderStage.querySelector('svg');
      svg.replaceChildren();
      const box = rectangle([corner[1], corner[0], corner[1] + cell[1], corner[0] + cell[0]]);
      for (const name of ['point', 'inner']) shape(svg, 'rect', { class: name, ...box });
      const centre = corner.map((value, axis) => Math.round(value + cell[axis] / 2));
      sliders.forEach((slider, axis) => slider.setAttribute('aria-valuetext', `${centre[axis]} pixels`));
      document.getElementById('encoder-says').textContent =
        `From the cell around ${centre[1]}, ${centre[0]} in layer ${layer + 1} of ${data.encoder.most.length}: ` +
        `the cell with the most attention has ${percent(data.encoder.most[layer][row])} of it.`;
    }

    encoderStage.addEventListener('click', (event) => {
      const [x, y] = place(encoderStage, event);
      sliders[0].value = source(y, 0);
      sliders[1].value = source(x, 1);
      showPoint();
    });
    const [x0, y0, x1, y1] = data.detections[0].layers.at(-1).box;
    sliders[0].value = source((y0 + y1) / 2, 0);
    sliders[1].value = source((x0 + x1) / 2, 1);
    for (const slider of sliders) slider.addEventListener('input', showPoint);
    listen('encoder-layer', showPoint);
  }

  for (const canvas of document.querySelectorAll('.scale canvas')) {
    paint(canvas.getContext('2d'), Uint8Array.from({ length: 256 }, (_, weight) => weight), 256, 1);
  }
})();
