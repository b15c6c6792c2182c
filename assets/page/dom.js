// Makes elements. What comes from people is only ever text.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") Object.entries(value).forEach(([event, fn]) => made.addEventListener(event, fn));
    else if (name in made && typeof value === "boolean") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function replace(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

// Resolves once there is such an element: Gradio draws the page after our scripts have begun.
export function appeared(selector) {
  return new Promise((resolve) => {
    const look = () => document.querySelector(selector);
    if (look()) return resolve(look());
    const watch = new MutationObserver(() => {
      if (!look()) return;
      watch.disconnect();
      resolve(look());
    });
    watch.observe(document, { childList: true, subtree: true });
  });
}
