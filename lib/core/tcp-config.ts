/** TCP's settings, for the layers above that may not look below the core. */
export { DEFAULT_TCP_CONFIG, type TcpConfig } from '../tcp/config.ts'
export { CONGESTION_CONTROLS, type CongestionControl } from '../tcp/congestion/choose.ts'
