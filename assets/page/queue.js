export function mount(element, page) {}
export function badge(page, fn) {}
