export function mount(element, page) {}
