/** Small pieces of DOM. Text and attributes are written only when they change; no inline style, no markup text. */

export type Attributes = Readonly<Record<string, string | number | boolean>>;
const SVG = "http://www.w3.org/2000/svg";

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K, attributes: Attributes = {}, ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  return filled(document.createElement(tag), attributes, children);
}

export function drawing<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: (Node | string)[]): SVGElementTagNameMap[K] {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled<T extends Element>(made: T, attributes: Attributes, children: readonly (Node | string)[]): T {
  set(made, attributes);
  made.append(...children);
  return made;
}

/** Attributes; true is an empty one, false none. */
export function set(target: Element, attributes: Attributes): void {
  for (const name in attributes) {
    const value = attributes[name] as string | number | boolean;
    const text = value === true ? "" : String(value);
    if (value === false) target.removeAttribute(name);
    else if (target.getAttribute(name) !== text) target.setAttribute(name, text);
  }
}

export function put(target: Node, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/** A group of buttons of which one is pressed. */
export function choice<T extends string>(label: string, options: readonly (readonly [T, string])[], chosen: T, onChoose: (one: T) => void) {
  const buttons = options.map(([name, text]) => {
    const button = element("button", { type: "button", "aria-pressed": `${name === chosen}` }, text);
    button.onclick = () => {
      for (const other of buttons) set(other, { "aria-pressed": `${other === button}` });
      onChoose(name);
    };
    return button;
  });
  return element("div", { class: "lp-choice", role: "group", "aria-label": label }, ...buttons);
}
