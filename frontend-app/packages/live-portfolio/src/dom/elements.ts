/** Small pieces of DOM. Text and attributes are written only when they change; no inline style, no markup text. */

export type Attributes = Readonly<Record<string, string | number | boolean>>;
const SVG = "http://www.w3.org/2000/svg";

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K, attributes: Attributes = {}, ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) set(made, name, value);
  made.append(...children);
  return made;
}

export function drawing<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Node[]): SVGElementTagNameMap[K] {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) set(made, name, value);
  made.append(...children);
  return made;
}

/** An attribute; true is an empty one, false none. */
export function set(target: Element, name: string, value: string | number | boolean): void {
  const text = value === true ? "" : String(value);
  if (value === false) target.removeAttribute(name);
  else if (target.getAttribute(name) !== text) target.setAttribute(name, text);
}

export function put(target: Node, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/** A group of buttons of which one is pressed. */
export function choice<T extends string>(label: string, options: readonly (readonly [T, string])[], chosen: T, onChoose: (one: T) => void) {
  const buttons = options.map(([name, text]) => {
    const button = element("button", { type: "button", "aria-pressed": String(name === chosen) }, text);
    button.onclick = () => {
      press(name);
      onChoose(name);
    };
    return [name, button] as const;
  });
  const press = (name: T) => {
    for (const [own, button] of buttons) set(button, "aria-pressed", String(own === name));
  };
  return element("div", { class: "lp-choice", role: "group", "aria-label": label }, ...buttons.map(([, button]) => button));
}

let count = 0;

/** An id that is on the page once. */
export function freshId(): string {
  return `lp-${++count}`;
}
