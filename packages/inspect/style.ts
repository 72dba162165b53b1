/** How the rings look. Colours come from the page where it sets `--virtio-…`, so that both agree. */
export const STYLE: string = `
:host {
  --vr-free: var(--virtio-free, #d9dfe7);
  --vr-available: var(--virtio-available, #e0a100);
  --vr-flight: var(--virtio-flight, #d1495b);
  --vr-used: var(--virtio-used, #3a9d5d);
  --vr-soft: var(--virtio-soft, #5b6673);
  --vr-line: var(--virtio-line, #d5dbe3);
  --vr-accent: var(--virtio-accent, #0b62a8);
  display: block;
  font-size: 13px;
  line-height: 1.45;
}
@media (prefers-color-scheme: dark) {
  :host {
    --vr-free: var(--virtio-free, #2a3442);
    --vr-available: var(--virtio-available, #e8b84a);
    --vr-flight: var(--virtio-flight, #ff7b8a);
    --vr-used: var(--virtio-used, #5cc98a);
    --vr-soft: var(--virtio-soft, #93a0af);
    --vr-line: var(--virtio-line, #263140);
    --vr-accent: var(--virtio-accent, #7cc4ff);
  }
}
h3 { margin: 14px 0 4px; font-size: 14px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 12px; margin: 0; padding: 0; list-style: none; color: var(--vr-soft); }
.legend i { display: inline-block; width: 10px; height: 10px; margin-right: 5px; border-radius: 2px; }
.queue { border-top: 1px solid var(--vr-line); padding: 8px 0; }
.head { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 8px; }
.head b { font-weight: 600; }
.head span { color: var(--vr-soft); }
.head .buttons { margin-left: auto; display: flex; gap: 4px; }
button {
  font: inherit; color: inherit; background: none; border: 1px solid var(--vr-line);
  border-radius: 5px; padding: 0 8px; cursor: pointer;
}
button:hover { border-color: var(--vr-accent); }
button[aria-pressed="true"] { border-color: var(--vr-flight); color: var(--vr-flight); }
button:focus-visible, [tabindex]:focus-visible { outline: 2px solid var(--vr-accent); outline-offset: 1px; }
canvas { display: block; width: 100%; margin: 6px 0; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 2px 10px; margin: 4px 0; }
dl div { min-width: 0; }
dt { color: var(--vr-soft); font-size: 12px; }
dd { margin: 0; font-variant-numeric: tabular-nums; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
dt, .legend li { cursor: help; }
.chains { color: var(--vr-soft); margin: 4px 0 0; font-variant-numeric: tabular-nums; }
.explain {
  position: sticky; bottom: 0; margin: 8px 0 0; padding: 6px 8px; min-height: 3.2em;
  background: var(--virtio-card, Canvas); border-top: 1px solid var(--vr-line); color: var(--vr-soft);
}
.explain b { color: var(--virtio-text, CanvasText); }
`;
