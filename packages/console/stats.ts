/** What a console device did since it was made. Plain numbers: counting costs a store. */
export class ConsoleStats {
  /** Bytes of the guest's output that back ends took. */
  outputBytes = 0;
  /** Bytes of the guest's output that nobody took: no such port, or closed on the host's side. */
  outputDiscarded = 0;
  /** Bytes of input that the guest's buffers took. */
  inputBytes = 0;
  /** Bytes of input that were dropped with a port that was removed. */
  inputDiscarded = 0;
  /** Characters through `emerg_wr`. */
  emergencyBytes = 0;
  /** Characters through `emerg_wr` that the back end of port 0 did not take. */
  emergencyDiscarded = 0;
  /** Control messages of the driver. */
  controlReceived = 0;
  /** Those that meant nothing: too short, of an unknown event or port, or not the driver's to send. */
  controlIgnored = 0;
  /** Control messages to the driver. */
  controlSent = 0;
  /** Those that the driver's buffer was too short for. */
  controlSkipped = 0;
}
