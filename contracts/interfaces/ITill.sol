// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Payment, Quote} from "./../types/Quotes.sol";
import {IEscrow} from "./IEscrow.sol";
import {IReceiver} from "./IReceiver.sol";

/// @title Where somebody without an account pays for one job
/// @notice A quote has a receiver: an address that follows from all the quote says, and at which only this contract's
/// receiver can ever live. Tokens that arrive there by an authorization have two ways out: into the quote's own
/// session, or back to whoever signed. The session's buyer is the receiver; what the session does not spend, and what
/// the court awards to its buyer, goes from there to the wallet that paid, and nowhere else. Tokens that come by a
/// plain transfer stay: nobody signed for them. Nobody owns this contract, and every function may be called by anyone.
/// @dev Assumes:
/// safety: the token is the escrow's, so a plain one; its EIP-3009 transfers move what was signed, once.
/// In `payPushed` and in `recover` before `RECOVERY_SECONDS` are over: the quote's key names who really paid. In
/// `recover` after that: whoever paid is there first. A token does not tell a sent authorization from a cancelled one,
/// so an authorization that was sent to the token directly says only that its signer may have paid. `pay` needs none
/// of this: it sees the transfer itself.
/// liveness: the token lets the payer receive. A payer that the token refuses blocks its own money only.
interface ITill {
    /// @notice A quote was paid and its session is open.
    /// @param receiver Of the quote.
    /// @param from Whose tokens they were; what is left returns there.
    /// @param quoteHash Struct hash of the quote.
    /// @param amount Atoms.
    event Paid(address indexed receiver, address indexed from, bytes32 indexed quoteHash, uint128 amount);
    /// @notice What a quote's session left went back to the wallet that paid.
    /// @param receiver Of the quote.
    /// @param from Who paid.
    /// @param amount Atoms.
    event Refunded(address indexed receiver, address indexed from, uint128 amount);
    /// @notice What the court awarded to the buyer of a quote's session went to the wallet that paid.
    /// @param receiver Of the quote.
    /// @param from Who paid.
    /// @param amount Atoms.
    event Awarded(address indexed receiver, address indexed from, uint64 amount);
    /// @notice Tokens that opened no session went back to whoever signed for them.
    /// @param receiver Of the quote.
    /// @param from Who signed.
    /// @param amount Atoms.
    event Recovered(address indexed receiver, address indexed from, uint256 amount);

    /// @notice Somebody else paid this quote.
    error Till_PaidAlready(address receiver, address from);
    /// @notice Nobody has paid this quote.
    error Till_NotPaid(address receiver);
    /// @notice The payment is not of the quote's amount.
    error Till_WrongAmount(uint256 got, uint256 limit);
    /// @notice The token moved another amount than was signed.
    error Till_WrongDelta(uint256 got, uint256 limit);
    /// @notice The payment was not signed by whoever it names.
    error Till_WrongSignature(address from);
    /// @notice The authorization is still there to be used.
    error Till_NotUsed(address from, bytes32 nonce);
    /// @notice The quote's key did not name this payer.
    error Till_WrongKey(address got, address limit);
    /// @notice A session may open until then.
    error Till_TooEarly(uint256 got, uint256 limit);

    /// @notice Pays a quote and opens its session, all or nothing. A quote that its payer has paid already stays as it
    /// is; a second authorization for it is left unused.
    /// @param quote Any quote; now < `payBefore`, and what `IEscrow.open` asks for.
    /// @param payment Of the quote's amount, to its receiver; not used yet.
    function pay(Quote calldata quote, Payment calldata payment) external;

    /// @notice As `pay`, when somebody sent the authorization to the token before: the tokens are in the receiver.
    /// @param quote As in `pay`.
    /// @param payment Of the quote's amount, to its receiver; used.
    /// @param keySignature Of `Payer`, by the quote's key, in the escrow's EIP-712 domain.
    function payPushed(Quote calldata quote, Payment calldata payment, bytes calldata keySignature) external;

    /// @notice Sends what a paid quote's session left to the wallet that paid; ends the session first when its grace
    /// is over. Nothing there: nothing happens. What a claim holds back comes with a later call, once it is decided.
    /// @param quote A paid one.
    /// @return amount Atoms sent.
    function refund(Quote calldata quote) external returns (uint128 amount);

    /// @notice Sends what the court awarded to the buyer of a paid quote's session to the wallet that paid. Nothing
    /// there: nothing happens. The award of a proof is there once anyone has called `ICourt.payAward`.
    /// @param quote A paid one.
    /// @return amount Atoms sent.
    function takeAwards(Quote calldata quote) external returns (uint64 amount);

    /// @notice Sends tokens that opened no session back to whoever signed their transfer, from `payBefore` on. For the
    /// first `RECOVERY_SECONDS` the quote's key must name the signer. Works once an authorization, never for the one
    /// that paid the quote.
    /// @param quote Paid by another authorization, or by none.
    /// @param payment To its receiver, of any amount; used.
    /// @param keySignature As in `payPushed`; not looked at once `RECOVERY_SECONDS` are over.
    /// @return amount Atoms sent, at most what was signed.
    function recover(Quote calldata quote, Payment calldata payment, bytes calldata keySignature)
        external
        returns (uint256 amount);

    /// @notice The address that a quote is paid to.
    /// @param quote Any quote.
    /// @return Has code once something was done with it.
    function receiverOf(Quote calldata quote) external view returns (address);

    /// @notice The session that a quote's payment opens.
    /// @param quote Any quote.
    /// @return Its id in the escrow.
    function sessionIdOf(Quote calldata quote) external view returns (bytes32);

    /// @notice Who paid the quote of a receiver.
    /// @param receiver Any address.
    /// @return 0: nobody.
    function payerOf(address receiver) external view returns (address);

    /// @notice Time after `payBefore` in which tokens go back only to whom the quote's key names.
    /// @return Seconds.
    function RECOVERY_SECONDS() external view returns (uint256);

    /// @notice Escrow that holds the sessions.
    /// @return Escrow.
    function ESCROW() external view returns (IEscrow);

    /// @notice Token of the escrow.
    /// @return A plain ERC-20 with EIP-3009.
    function TOKEN() external view returns (IERC20);

    /// @notice Code of every receiver; made when this contract was deployed.
    /// @return The receiver that receives nothing.
    function RECEIVER() external view returns (IReceiver);
}
