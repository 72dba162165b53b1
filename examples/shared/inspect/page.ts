/** The page of `--inspect`: what comes over the socket is drawn, what is clicked goes back. */
import "@virtio/inspect/element";
import type { VirtioRings } from "@virtio/inspect/element";

const rings = document.querySelector<VirtioRings>("virtio-rings")!;
const state = document.getElementById("state")!;
const socket = new WebSocket(new URL("rings", location.href.replace(/^http/, "ws")));
socket.onopen = () => state.textContent = "Live";
socket.onclose = () => state.textContent = "The program has ended";
socket.onmessage = ({ data }) => {
  if (!document.hidden) rings.snapshot = JSON.parse(data);
};
rings.addEventListener("command", (event) => {
  socket.send(JSON.stringify((event as CustomEvent).detail));
});
