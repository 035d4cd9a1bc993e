// Pictures on a canvas: axes, curves, a histogram, a map of a density over time.

const WIDE = { font: "12px system-ui, sans-serif", left: 46, right: 12, top: 12, bottom: 38 };
const NARROW = { font: "10px system-ui, sans-serif", left: 34, right: 6, top: 6, bottom: 30 };

/** The colours of the page's theme, by name, as style.css has them. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  return name => style.getPropertyValue(`--${name}`).trim();
}

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶" };

/** A number on an axis; on a logarithmic one a power of ten, or a fraction. */
function tickName(value, isLog) {
  const power = Math.log10(value);
  const plain = String(Number(value.toPrecision(12))).replace("-", "−");
  if (!isLog || value === 1 || value === 10) return plain;
  if (!Number.isInteger(power)) return value < 1 ? `1/${1 / value}` : plain;
  return `10${[...String(power)].map(digit => RAISED[digit]).join("")}`;
}

/** About five round numbers of an interval; powers of ten on a logarithmic axis. */
function ticks([low, high], isLog) {
  if (isLog) {
    const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, k) => 10 ** (first + k));
  }
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, k) => (first + k) * step);
}

/** An empty picture with axes: `x` and `y` take numbers to places on the canvas. */
export class Picture {
  constructor(canvas, { x, y, xLabel, yLabel, xTicks, logX = false, logY = false }) {
    const { width, height } = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    this.pen = canvas.getContext("2d");
    this.pen.scale(ratio, ratio);
    this.colour = colours();
    this.limits = { x, y };
    this.isNarrow = width < 260;
    const { font, left, right, top, bottom } = this.isNarrow ? NARROW : WIDE;
    Object.assign(this, { font, left, right: width - right, top, bottom: height - bottom });
    const scale = ([low, high], isLog, from, to) => {
      const f = isLog ? Math.log : value => value;
      return value => from + (f(value) - f(low)) / (f(high) - f(low)) * (to - from);
    };
    this.x = scale(x, logX, this.left, this.right);
    this.y = scale(y, logY, this.bottom, this.top);
    this.axes = { xLabel, yLabel, xTicks: xTicks ?? ticks(x, logX), logX };
    Object.assign(this.axes, { yTicks: ticks(y, logY), logY });
  }

  /** The axes: last, so that nothing lies on them. */
  finish() {
    const { pen, left, right, top, bottom } = this;
    const { xLabel, yLabel, xTicks, yTicks, logX, logY } = this.axes;
    pen.strokeStyle = pen.fillStyle = this.colour("axis");
    pen.lineWidth = 1;
    pen.font = this.font;
    pen.beginPath();
    pen.moveTo(left, top);
    pen.lineTo(left, bottom);
    pen.lineTo(right, bottom);
    pen.stroke();
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const value of xTicks) {
      pen.fillRect(this.x(value) - 0.5, bottom, 1, 4);
      pen.fillText(tickName(value, logX), this.x(value), bottom + 6);
    }
    pen.fillText(xLabel, (left + right) / 2, bottom + (this.isNarrow ? 17 : 21));
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const value of yTicks) {
      pen.fillRect(left - 4, this.y(value) - 0.5, 4, 1);
      pen.fillText(tickName(value, logY), left - 6, this.y(value));
    }
    if (this.isNarrow) return;
    pen.save();
    pen.translate(8, (top + bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(yLabel, 0, 0);
    pen.restore();
  }

  /** Draw inside the axes only. */
  inside(draw) {
    const { pen, left, right, top, bottom } = this;
    pen.save();
    pen.beginPath();
    pen.rect(left, top, right - left, bottom - top);
    pen.clip();
    draw(pen);
    pen.restore();
  }

  line(x, y, name, { width = 1.5, dash = [] } = {}) {
    this.inside(pen => {
      pen.strokeStyle = this.colour(name);
      pen.lineWidth = width;
      pen.setLineDash(dash);
      pen.lineJoin = "round";
      pen.beginPath();
      for (let i = 0; i < x.length; i++) pen.lineTo(this.x(x[i]), this.y(y[i]));
      pen.stroke();
    });
  }

  /** What lies between two curves. */
  area(x, low, high, name) {
    this.inside(pen => {
      pen.fillStyle = this.colour(name);
      pen.beginPath();
      for (let i = 0; i < x.length; i++) pen.lineTo(this.x(x[i]), this.y(low[i]));
      for (let i = x.length - 1; i >= 0; i--) pen.lineTo(this.x(x[i]), this.y(high[i]));
      pen.fill();
    });
  }

  dot(x, y, name) {
    const { pen } = this;
    pen.fillStyle = this.colour(name);
    pen.beginPath();
    pen.arc(this.x(x), this.y(y), 5, 0, 2 * Math.PI);
    pen.fill();
  }

  /** Words that stand over a place. */
  note(words, x, y) {
    const { pen } = this;
    pen.fillStyle = this.colour("axis");
    pen.font = this.font;
    pen.textAlign = "center";
    pen.textBaseline = "bottom";
    pen.fillText(words, this.x(x), this.y(y) - 2);
  }

  /** Bars of a share per length, of values between two ends. */
  histogram(values, [low, high], n, name) {
    const counts = new Float64Array(n), width = (high - low) / n;
    for (const value of values) {
      const k = Math.floor((value - low) / width);
      if (k >= 0 && k < n) counts[k] += 1 / (values.length * width);
    }
    this.inside(pen => {
      pen.fillStyle = this.colour(name);
      counts.forEach((count, k) => {
        const [from, to] = [this.x(low + k * width), this.x(low + (k + 1) * width)];
        pen.fillRect(from, this.y(count), to - from + 0.5, this.bottom - this.y(count));
      });
    });
  }

  /**
   * A density over time in colours: `slice(share)` gives increasing states and the density there,
   * for a share of the way along the x-axis. The root of the density is shown, so that what is
   * spread out is seen beside what is narrow. What is drawn is kept, and drawn again for the same
   * key.
   */
  map(slice, peak, key) {
    const whole = JSON.stringify([key, this.limits.y, this.colour("map-low")]);
    if (whole !== kept.key) Object.assign(kept, { key: whole, image: this.#image(slice, peak) });
    this.inside(pen => {
      const { left, top, right, bottom } = this;
      pen.drawImage(kept.image, left, top, right - left, bottom - top);
    });
  }

  #image(slice, peak) {
    const m = 240, n = 200, image = new ImageData(m, n), [low, high] = this.limits.y;
    const [from, to] = ["map-low", "map-high"].map(name => rgb(this.colour(name)));
    for (let column = 0; column < m; column++) {
      const [x, p] = slice((column + 0.5) / m);
      for (let row = 0, i = 1; row < n; row++) {
        const at = low + (high - low) * (row + 0.5) / n;
        while (i < x.length - 1 && x[i] < at) i++;
        const share = (at - x[i - 1]) / (x[i] - x[i - 1]);
        const value = share >= 0 && share <= 1 ? p[i - 1] + share * (p[i] - p[i - 1]) : 0;
        const strength = Math.sqrt(Math.min(1, value / peak)), k = 4 * ((n - 1 - row) * m + column);
        for (let c = 0; c < 3; c++) image.data[k + c] = from[c] + strength * (to[c] - from[c]);
        image.data[k + 3] = 255;
      }
    }
    const hidden = new OffscreenCanvas(m, n);
    hidden.getContext("2d").putImageData(image, 0, 0);
    return hidden;
  }
}

const kept = {};  // the last map

const rgb = hex => [1, 3, 5].map(k => parseInt(hex.slice(k, k + 2), 16));
