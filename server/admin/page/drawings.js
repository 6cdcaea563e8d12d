// What is drawn rather than written: plots over time, and the timeline of one stream. SVG, made by hand.

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** The points of a line that breaks where there is no value. */
function path(values, top) {
  let drawn = "";
  let pen = "M";
  values.forEach((value, place) => {
    if (value === null || value === undefined) {
      pen = "M";
      return;
    }
    drawn += `${pen}${place} ${(100 - (96 * value) / top).toFixed(2)}`;
    pen = "L";
  });
  return drawn;
}

/**
 * One or two series over the last minutes, one value a second.
 * @param {(value: number) => string} told writes a value
 */
export function drawPlot(title, one, two, told) {
  const values = [...one, ...(two ?? [])].filter((value) => value !== null && value !== undefined);
  const top = Math.max(...values, 1e-6);
  const last = one.findLast((value) => value !== null && value !== undefined);
  const summary = values.length ? `now ${told(last)}, at most ${told(top)}` : "nothing yet";
  const picture = shape("svg", { viewBox: `0 0 ${Math.max(one.length - 1, 1)} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${summary} in the last ${Math.ceil(one.length / 60)} minutes` });
  picture.append(shape("path", { d: path(one, top), class: "plot-one" }));
  if (two) picture.append(shape("path", { d: path(two, top), class: "plot-two" }));
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.append(Object.assign(document.createElement("span"), { textContent: title }), Object.assign(document.createElement("span"), { textContent: summary }));
  figure.append(caption, picture);
  return figure;
}

/** The life of one stream as a line: waiting, flowing, and a dot for each thing that happened. */
export function drawTimeline(stream, told) {
  const width = 1000;
  const at = (seconds) => 10 + (980 * Math.min(seconds, stream.total)) / Math.max(stream.total, 1e-6);
  const picture = shape("svg", { viewBox: `0 0 ${width} 60`, class: "timeline", role: "img", "aria-label": `Timeline of ${told(stream.total)}: ${stream.story.length} entries, listed below`, preserveAspectRatio: "none" });
  const first = stream.first_token ?? stream.total;
  picture.append(shape("line", { x1: at(0), x2: at(first), y1: 30, y2: 30, class: "wait" }), shape("line", { x1: at(first), x2: at(stream.total), y1: 30, y2: 30, class: "flow" }));
  for (const [seconds, kind, text] of stream.story) {
    const dot = shape("ellipse", { cx: at(seconds), cy: 30, rx: 4, ry: 9, class: kind === "fault" ? "dot bad" : "dot" });
    dot.append(shape("title", {}, `${told(seconds)} ${kind}: ${text}`));
    picture.append(dot);
  }
  return picture;
}
